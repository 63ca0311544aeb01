"""The mean and standard deviation of each channel, red, green and blue, that networks take images
with; colours go from 0 to 1."""

Std = tuple[float, float, float]

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)
SWAV_STD = (0.228, 0.224, 0.225)  # of SwAV's and DeepCluster-v2's released networks
