import s3seg


def test_the_package_has_a_version():
    assert s3seg.__version__
