"""The web application of `guerdon collect start`: the rater's screen, access, and the pages of leads and admins.

Server-rendered pages, hand-written script and style beside this file, nothing fetched from anywhere else.
"""
