"""Where the files of the shipped world lie."""

import pathlib

FOLDER = pathlib.Path(__file__).resolve().parent / 'world'
GENERATOR_FILE = 'talking-head-128.pkl'
ENCODER_FILE = 'talking-head-128-encoder.pkl'
READER_FILE = 'truth-reader.safetensors'
