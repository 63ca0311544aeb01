"""Reading the files of Caffe."""
