"""Rendering of self-contained pages from Jinja2 templates."""

from functools import cache

from jinja2 import ChoiceLoader, Environment, PackageLoader, StrictUndefined

from kdedge_export.html import text
from kdedge_export.html.palette import PALETTE

__all__ = ["render"]


def render(package: str, template: str, **context: object) -> str:
    """Render a page that runs no script and loads nothing.

    Every value is escaped, except `markupsafe.Markup` such as a chart.

    Args:
        package: package whose folder `templates` holds the template; it may extend `base.html` and import `macros.html`
            of this package.
        template: file name in the folder.
        context: variables of the template.

    Raises:
        jinja2.UndefinedError: the template uses a variable that is not given.
    """
    return _environment(package).get_template(template).render(context)


@cache
def _environment(package: str) -> Environment:
    environment = Environment(
        loader=ChoiceLoader([PackageLoader(package), PackageLoader("kdedge_export.html")]),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    formats = (
        text.percent,
        text.plain_number,
        text.signed_number,
        text.points,
        text.correlation,
        text.quantity,
        text.megabytes,
        text.large,
        text.sizes,
    )
    environment.filters |= {each.__name__: each for each in formats}
    environment.globals |= {"PALETTE": PALETTE}
    return environment
