"""Shared by the scenarios that run in separate processes."""


def raises(kind, text, function, *arguments, **options):
    try:
        function(*arguments, **options)
    except kind as error:
        assert text in str(error), error
    else:
        raise AssertionError(f"{kind.__name__} ({text}) was not raised")
