"""Small fake copies of public data sets: the exact folders, names and encodings of each, made of a few pixels."""
