"""Prediction: of images in memory by predictors, and of image files, each module imported by what needs it."""
