"""The report of a comparison.

figures   pictures in grids: all contenders, differences, steps of a sampling, axes
plots     numbers as plots
summary   numbers as text, and alternative texts of the figures
descriptions   contenders and precision, in words
snippet   Python code that samples what was trained
html      the HTML page, from report.html.j2, report.css and report.js
"""
