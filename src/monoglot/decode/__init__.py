"""From memory to answers.

Memory -> search (greedy is a beam of one), limited by a constraint -> Hypothesis -> text -> task's answer -> Prediction
"""
