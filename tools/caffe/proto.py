"""Caffe's files as messages of Google's protocol buffers, read with the protobuf package.

Caffe writes a network twice: as text (`.prototxt`: the layers) and binary (`.caffemodel`: with the
weights). The table below has the messages and fields that are needed here; other fields are
skipped.
"""

import functools
import re
from pathlib import Path
from typing import Any

from system.errors import InputError, shorten
from system.extras import check_installed

# For each message the fields: number, name, type (with * if it repeats), default
MESSAGES = {
    "BlobShape": ["1 dim int64*"],
    "BlobProto": [
        "1 num int32", "2 channels int32", "3 height int32", "4 width int32",
        "5 data float*", "7 shape BlobShape", "8 double_data double*",
    ],
    "NetParameter": [
        "3 input string*", "4 input_dim int32*", "8 input_shape BlobShape*",
        "100 layer LayerParameter*", "2 layers V1LayerParameter*",
    ],
    "LayerParameter": [
        "1 name string", "2 type string", "3 bottom string*", "4 top string*", "7 blobs BlobProto*",
        "8 include NetStateRule*", "9 exclude NetStateRule*",
        "100 transform_param TransformationParameter", "107 data_param DataParameter",
        "106 convolution_param ConvolutionParameter",
        "117 inner_product_param InnerProductParameter", "121 pooling_param PoolingParameter",
        "122 power_param PowerParameter", "123 relu_param ReLUParameter",
        "139 batch_norm_param BatchNormParameter", "141 bias_param BiasParameter",
        "142 scale_param ScaleParameter", "143 input_param InputParameter",
    ],
    "V1LayerParameter": [  # before the end of 2014
        "4 name string", "5 type V1LayerType", "2 bottom string*", "3 top string*",
        "6 blobs BlobProto*", "32 include NetStateRule*", "33 exclude NetStateRule*",
        "11 data_param DataParameter", "36 transform_param TransformationParameter",
        "10 convolution_param ConvolutionParameter", "17 inner_product_param InnerProductParameter",
        "19 pooling_param PoolingParameter", "21 power_param PowerParameter",
        "30 relu_param ReLUParameter",
    ],
    "NetStateRule": [
        "1 phase Phase", "2 min_level int32", "3 max_level int32 2147483647", "4 stage string*",
    ],
    "TransformationParameter": [
        "1 scale float 1", "3 crop_size uint32", "4 mean_file string", "5 mean_value float*",
    ],
    "DataParameter": ["2 scale float 1", "3 mean_file string", "5 crop_size uint32"],
    "InputParameter": ["1 shape BlobShape*"],
    "ConvolutionParameter": [
        "1 num_output uint32", "2 bias_term bool true", "3 pad uint32*", "4 kernel_size uint32*",
        "5 group uint32 1", "6 stride uint32*", "9 pad_h uint32", "10 pad_w uint32",
        "11 kernel_h uint32", "12 kernel_w uint32", "13 stride_h uint32", "14 stride_w uint32",
        "16 axis int32 1", "18 dilation uint32*",
    ],
    "PoolingParameter": [
        "1 pool PoolMethod", "2 kernel_size uint32", "3 stride uint32 1", "4 pad uint32 0",
        "5 kernel_h uint32", "6 kernel_w uint32", "7 stride_h uint32", "8 stride_w uint32",
        "9 pad_h uint32", "10 pad_w uint32", "12 global_pooling bool", "13 round_mode RoundMode",
    ],
    "InnerProductParameter": [
        "1 num_output uint32", "2 bias_term bool true", "5 axis int32 1", "6 transpose bool",
    ],
    "BatchNormParameter": ["3 eps float 1e-5"],
    "ScaleParameter": ["1 axis int32 1", "2 num_axes int32 1", "4 bias_term bool"],
    "BiasParameter": ["1 axis int32 1", "2 num_axes int32 1"],
    "PowerParameter": ["1 power float 1", "2 scale float 1", "3 shift float 0"],
    "ReLUParameter": ["1 negative_slope float 0"],
}  # fmt: skip
ENUMS = {
    "Phase": {"TRAIN": 0, "TEST": 1},
    "PoolMethod": {"MAX": 0, "AVE": 1, "STOCHASTIC": 2},
    "RoundMode": {"CEIL": 0, "FLOOR": 1},
    "V1LayerType": {
        "NONE": 0, "ACCURACY": 1, "CONVOLUTION": 4, "DATA": 5, "DROPOUT": 6, "EUCLIDEAN_LOSS": 7,
        "FLATTEN": 8, "HDF5_DATA": 9, "IMAGE_DATA": 12, "INNER_PRODUCT": 14, "LRN": 15,
        "MULTINOMIAL_LOGISTIC_LOSS": 16, "POOLING": 17, "RELU": 18, "SOFTMAX": 20,
        "SOFTMAX_LOSS": 21, "WINDOW_DATA": 24, "POWER": 26, "SIGMOID_CROSS_ENTROPY_LOSS": 27,
        "HINGE_LOSS": 28, "MEMORY_DATA": 29, "SILENCE": 36,
    },
}  # fmt: skip

TEST = ENUMS["Phase"]["TEST"]


def read_prototxt(path: str | Path) -> Any:
    """The `NetParameter` of a text file.

    Raises:
        InputError: the file is missing or not a prototxt.
    """
    content = _read(path)
    from google.protobuf import text_format

    net = new("NetParameter")
    try:
        text_format.Parse(content.decode("utf-8-sig"), net, allow_unknown_field=True)
    except text_format.ParseError as error:
        # the message has the place, perhaps the whole line, then the reason
        reason = re.sub(r"^\d+:\d+ : ('.*': )?", "", str(error).splitlines()[-1])
        place = "" if error.GetLine() is None else f"line {error.GetLine()}: "
        raise InputError(f"{path}: not a Caffe prototxt: {place}{shorten(reason)}") from error
    except (UnicodeDecodeError, RecursionError) as error:
        raise InputError(f"{path}: not a Caffe prototxt") from error
    return net


def read_caffemodel(path: str | Path) -> Any:
    """The `NetParameter` of a binary file.

    Raises:
        InputError: the file is missing, damaged or not a caffemodel.
    """
    content = _read(path)
    from google.protobuf.message import DecodeError

    net = new("NetParameter")
    try:
        net.ParseFromString(content)
    except DecodeError as error:
        raise InputError(f"{path}: not a caffemodel, or a damaged one") from error
    return net


def new(name: str) -> Any:
    """An empty message, such as `NetParameter`."""
    return _classes()[name]()


def _read(path: str | Path) -> bytes:
    check_installed(str(path), "protobuf")
    try:
        return Path(path).read_bytes()
    except OSError as error:
        raise InputError(f"{path}: cannot read this file: {error.strerror}") from error


@functools.cache
def _classes() -> dict[str, Any]:
    """The class of each message."""
    from google.protobuf import descriptor_pb2, descriptor_pool, message_factory

    file = descriptor_pb2.FileDescriptorProto(name="caffe_subset.proto", package="caffe_subset")
    file.syntax = "proto2"
    for name, values in ENUMS.items():
        enum = file.enum_type.add(name=name)
        for value, number in values.items():
            enum.value.add(name=value, number=number)
    for name, fields in MESSAGES.items():
        message = file.message_type.add(name=name)
        for field in fields:
            _add_field(message, *field.split())
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    found = (pool.FindMessageTypeByName(f"caffe_subset.{name}") for name in MESSAGES)
    return {each.name: message_factory.GetMessageClass(each) for each in found}


def _add_field(message: Any, number: str, name: str, kind: str, default: str | None = None) -> None:
    field = message.field.add(name=name, number=int(number), default_value=default)
    once, many = field.LABEL_OPTIONAL, field.LABEL_REPEATED
    field.label = many if kind.endswith("*") else once
    kind = kind.rstrip("*")
    if kind in MESSAGES:
        field.type, field.type_name = field.TYPE_MESSAGE, f".caffe_subset.{kind}"
    elif kind in ENUMS:
        field.type, field.type_name = field.TYPE_ENUM, f".caffe_subset.{kind}"
    else:
        field.type = field.Type.Value(f"TYPE_{kind.upper()}")
