"""Runs listed, shown, compared and removed, all read from their folders alone.

table                 runs as rows of plain values, and as a table of text
query                 rows selected and sorted by any value
show                  a run in words
diff                  two runs compared
index_page            outputs/index.html
pictures              a run's pictures, opened as files that anybody may have changed
cleanup               runs and leftovers removed
compiled_extensions   what torch compiled for environments that are gone
"""
