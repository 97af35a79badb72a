"""`make bench`: how fast this program is, beside the others, on one machine in one run. README.md here says what each
figure means. Nothing of the product imports this folder; no test is decided by what it measures.
"""
