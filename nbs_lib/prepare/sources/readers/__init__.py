"""Readers of file formats.

folder_listing  folders and their subfolders
parquet         tables in little memory, whatever they hold
parquet_pages   the headers of a table's pages
tar_members     the members of a tar archive
"""
