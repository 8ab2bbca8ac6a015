"""The preparation of one cache by several hosts.

share    the part of the work that is this host's, and what the hosts tell one another
meeting  the process of a host among those of the others
"""
