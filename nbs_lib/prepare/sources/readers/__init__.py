"""Readers of file formats that sources rest on: folders, tables, parquet pages and tar members."""
