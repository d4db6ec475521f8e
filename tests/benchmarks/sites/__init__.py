"""Applications that uWSGI serves while they are measured; each answers ``GET /read`` and ``POST
/update?n=``.
"""
