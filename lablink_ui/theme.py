def add_assets(app):
    pass
