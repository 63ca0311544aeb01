"""Caffe's files as our networks: `python -m tools.caffe.import_model`.

In: model.prototxt and model.caffemodel. Out: a checkpoint whose network has the same outputs.

    import_model.py   the command: a Caffe network as a checkpoint
    proto.py          the two files as messages
    net.py            the layers in order, as steps
    layers.py         one layer as the step that it computes, with its weights
    pixels.py         mean, scale and colour order, moved into the first convolution
"""
