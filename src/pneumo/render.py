"""Pages and cards filled in from the package's templates."""

from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined, select_autoescape


def render(template: str, **values: Any) -> str:  # noqa: ANN401 (whatever the template shows)
    """Fill in a template of `pneumo/templates`; pages have their markup escaped, and a missing value is an error."""
    environment = Environment(
        loader=PackageLoader("pneumo"),
        autoescape=select_autoescape(["html"]),
        undefined=StrictUndefined,
        trim_blocks=True,
        keep_trailing_newline=True,
    )
    return environment.get_template(template).render(**values)
