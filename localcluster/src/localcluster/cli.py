"""The command line: `python -m localcluster up | down | status | kubeconfig | logs | build`.

Answers (the kubeconfig's path, the status) go to stdout, everything meant for people watching to stderr.
"""

import subprocess
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from localcluster import api, binaries, images, processes, state
from localcluster.errors import LocalClusterError
from localcluster.state import Layout, Profile

HELP = "A real Kubernetes on this machine, for the demo, the tests and the benchmarks (docs/local-cluster.md)."
app = typer.Typer(no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False, help=HELP)
_errors = Console(stderr=True)

Name = Annotated[str, typer.Option(help="The cluster's name; several run side by side.")]


@app.command()
def up(
    name: Name = "rfuav",
    profile: Annotated[
        Profile, typer.Option(help="api: API server and simulated nodes, no root. full: real nodes, needs root.")
    ] = "full",
    nodes: Annotated[int, typer.Option(min=1, max=4, help="Real nodes of the full profile.")] = 1,
    use_kubeconfig: Annotated[
        bool | None, typer.Option(help="Use the cluster of $KUBECONFIG instead of making one.")
    ] = None,
) -> None:
    """Bring a cluster up, or its missing parts; prints the path of its kubeconfig."""
    typer.echo(api.up(name, profile, nodes=nodes, use_kubeconfig=use_kubeconfig, console=_errors).kubeconfig)


@app.command()
def down(name: Name = "rfuav") -> None:
    """Take a cluster down and leave nothing of it behind. Built programs and images stay cached."""
    api.down(name)


@app.command()
def kubeconfig(name: Name = "rfuav") -> None:
    """Print the path of the running cluster's kubeconfig and nothing else."""
    cluster = api.get(name)
    if cluster is None:
        message = f"Cluster {name} is not up: `localcluster up --name {name}` (or `make cluster-up`) brings it up."
        raise LocalClusterError(message)
    typer.echo(cluster.kubeconfig)


@app.command()
def status(name: Annotated[str | None, typer.Option(help="One cluster; without it, all.")] = None) -> None:
    """Show which clusters there are and what runs in them."""
    table = Table("cluster", "profile", "component", "processes")
    for each in [state.check_name(name)] if name else state.all_names():
        layout = Layout.of(each)
        settings = state.peek(layout)
        alive = processes.running(layout)
        ready = settings is not None and api.get(each) is not None
        table.add_row(
            each,
            settings.profile if settings else "-",
            "API server " + ("ready" if ready else "not ready"),
            str(len(alive)),
        )
        for component in sorted({p.component for p in alive}):
            table.add_row("", "", component, " ".join(str(p.pid) for p in alive if p.component == component))
    Console().print(table if table.row_count else "no cluster is up")


@app.command()
def logs(
    component: Annotated[
        str | None, typer.Argument(help="For example kube-apiserver; without it, the components that have logs.")
    ] = None,
    name: Name = "rfuav",
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Go on as the log grows.")] = False,
) -> None:
    """Show a component's log."""
    layout = Layout.of(name)
    have = sorted(p.stem for p in layout.logs.glob("*.log")) if layout.logs.exists() else []
    if component is None:
        typer.echo("\n".join(have))
    elif component not in have:
        message = f"Cluster {name} has no log of {component!r}; it has: {', '.join(have) or 'none'}."
        raise LocalClusterError(message)
    else:
        path = processes.log_path(layout, component)
        subprocess.run(["tail", "-n", "200", *(["-F"] if follow else []), str(path)], check=False)


@app.command()
def build(
    programs: Annotated[
        list[str] | None, typer.Argument(help="Programs to build; without them, those of the profile.")
    ] = None,
    profile: Annotated[Profile, typer.Option(help="full includes those of api.")] = "full",
) -> None:
    """Build the cluster's programs into the cache, so that the first `up` is quick; prints their paths."""
    unknown = sorted(set(programs or ()) - set(binaries.PROGRAMS))
    if unknown:
        message = f"No such program: {', '.join(unknown)}. There are: {', '.join(binaries.PROGRAMS)}."
        raise LocalClusterError(message)
    of_profile = binaries.API_PROFILE if profile == "api" else (*binaries.API_PROFILE, *binaries.FULL_PROFILE)
    names = tuple(programs or dict.fromkeys(of_profile))
    for path in binaries.ensure(names, _errors).values():
        typer.echo(path)


images_app = typer.Typer(no_args_is_help=True, help="Images for the cluster's nodes.")
app.add_typer(images_app, name="image")


@images_app.command("build")
def build_image(
    tag: Annotated[str, typer.Option("--tag", "-t", help="The image's name, for example rfuav-trainer.")],
    file: Annotated[Path, typer.Option("--file", "-f", help="The Dockerfile.")] = Path("Dockerfile"),
    context: Annotated[Path, typer.Argument(help="The build's context.")] = Path(),
    build_arg: Annotated[list[str] | None, typer.Option(help="NAME=VALUE, may be repeated.")] = None,
    name: Name = "rfuav",
) -> None:
    """Build a Dockerfile, push it to the cluster's registry and print the reference that pods use."""
    if wrong := [one for one in build_arg or () if "=" not in one]:
        raise LocalClusterError(f"--build-arg {wrong[0]} has no value: write --build-arg {wrong[0]}=VALUE.")
    cluster = api.get(name)
    if cluster is None or cluster.registry is None:
        raise LocalClusterError(
            f"Cluster {name} is not up with the full profile: `localcluster up --profile full --name {name}`."
        )
    arguments = dict(one.split("=", 1) for one in build_arg or ())
    typer.echo(
        images.build(file, tag, registry=cluster.registry, context=context, build_args=arguments, console=_errors)
    )


def main() -> None:
    """Run the command line; errors people can act on are printed without a traceback."""
    try:
        app()
    except LocalClusterError as error:
        # a log's end may hold [brackets], which are not to be taken for colours
        _errors.print(f"[bold red]error:[/] {escape(str(error))}", highlight=False, soft_wrap=True)
        raise SystemExit(1) from None
