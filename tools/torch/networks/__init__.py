"""The networks that syncdiff imports, in plain PyTorch, with the names of the original projects' state dictionaries.

Written from the papers and layer tables; they are the yardstick of `check_imports.py`, and are
themselves compared with recorded outputs of the original implementations (`check_imports.py --goldens`).
"""
