"""A Typer application with one command, for its `--help`: the floor for the start-up of any Typer program."""

import typer

app = typer.Typer()


@app.command()
def hello(name: str, loud: bool = False) -> None:
    """Greet someone."""
    greeting = f"Hello {name}"
    typer.echo(greeting.upper() if loud else greeting)


if __name__ == "__main__":
    app()
