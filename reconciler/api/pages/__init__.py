"""The dashboard: pages made on the server, for people; reads what the routes of the API read.

A page is a route of a `PageRouter`, which takes a `VisitDep`, reads within `visit.connection()`, and returns
`visit.show("name.html", …)`. Its template begins with `{% extends layout %}` and fills the blocks `title` and
`live`; the latter alone is sent again when the page looks for news. A form posts to a route that takes a
`Submission` and ends with `visit.redirect(…)`.
"""
