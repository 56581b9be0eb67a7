"""From memory to answers.

Memory -> search (likeliest tokens or drawn ones), limited by constraints and rules -> Hypothesis -> text -> task's answer -> Prediction
"""
