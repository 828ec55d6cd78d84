"""`make gpu-check`: what only a GPU can show, checked and measured in under five minutes.

`rows` is what a check returns, `card` what is asked of the device, `made` the images; `correct`, `speed` and `search`
contain the checks, and `running` makes the table and the file from them.
"""
