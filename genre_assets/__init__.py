"""The batch code location: one module per asset, with its checks; resources; definitions.

Assets say what is made from what and call the other rooms for the work: no feature maths and no session building.
"""
