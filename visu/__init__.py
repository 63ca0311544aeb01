"""Pictures of runs, clusters, features and filters; docs/pictures.md shows them.

In: an experiment folder, or a checkpoint and images. Out: JPEG and PNG sheets, self-contained HTML
pages. Imports any room except tools/ and benchmarks/.

Scripts, run as `python visu/NAME.py`:
    report.py            a run's report.html
    clusters.py          contact sheets of clusters
    feature_map.py       a data set's features in two dimensions, on one page
    curves.py            the curves of several runs side by side
    gradient_ascent.py   the picture that a filter responds to
    activ_retrieval.py   the images that a filter responds to
    activ-retrieval.py   the same, under the original's name

Behind them:
    report_page.py       the content of the report
    overview.py          the numbers at the top of the report
    charts.py            the curves of a run, as SVG or in a figure
    comparison.py        the picture of several networks' measures
    choice.py            loss, silhouette and stability over k
    merge_tree.py        the tree of clusters that are merged
    gallery.py           the clusters that a page shows, and the names to search
    first_filters.py     the filters of the first conv layer as pictures
    clusters_page.py     the content of the report and the map of cluster_images.py
    placing.py           the place of every image on its map
    thumbnails.py        small pictures in files, made during the pass through the network
    page.py              HTML pages from templates and small pictures
    contact_sheet.py     small pictures in rows, with captions
    ascent.py            gradient ascent from noise
    folded.py            a frozen network as fewer and larger operations
    top_images.py        the best images of each filter, in one pass
    receptive_field.py   the pixels that a place of a conv layer sees
"""
