"""Whole models: conversion and the way back, redirection, Monte Carlo dropout, DropConnect."""

from dropout_ext.models.convert import convert_dropout
from dropout_ext.models.drop_connect import DropConnect, drop_connect, remove_drop_connect
from dropout_ext.models.find import find_torch_dropout
from dropout_ext.models.monte_carlo import Prediction, SampledPrediction, mc_dropout, mc_predict
from dropout_ext.models.redirect import redirect_torch_dropout
from dropout_ext.models.report import ConversionReport
from dropout_ext.models.revert import revert_dropout

__all__ = [
    "ConversionReport",
    "DropConnect",
    "Prediction",
    "SampledPrediction",
    "convert_dropout",
    "drop_connect",
    "find_torch_dropout",
    "mc_dropout",
    "mc_predict",
    "redirect_torch_dropout",
    "remove_drop_connect",
    "revert_dropout",
]
