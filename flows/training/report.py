def write_report(folder, data):
    pass
