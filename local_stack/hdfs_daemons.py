"""How the NameNode and the DataNode are started, and how the NameNode's storage is made."""

import time
from pathlib import Path
from secrets import token_hex
from xml.etree import ElementTree

from genres.settings import Settings
from local_stack.program import JAVA_OPTIONS, LOGGING_OPTIONS, Program, format_folder

_NAMENODE = "org.apache.hadoop.hdfs.server.namenode.NameNode"
# A line for each request, and 1,024 for each start of a DataNode.
_QUIET = tuple(
    f"-Dorg.slf4j.simpleLogger.log.{logger}=warn"
    for logger in ("http.requests", "org.apache.hadoop.hdfs.server.datanode.fsdataset.impl.FsDatasetImpl")
)

_CSRF_HEADER = "dfs.webhdfs.rest-csrf.custom-header"
_DATANODE = "org.apache.hadoop.hdfs.server.datanode.DataNode"


def hdfs_programs(settings: Settings, java_home: Path, jars: list[Path]) -> list[Program]:
    """Return the two HDFS daemons, with the configuration that makes one node a whole cluster."""
    folder = settings.state_dir / "hdfs"
    conf_dir = folder / "conf"
    hdfs_file = conf_dir / "hdfs-site.xml"
    files = {
        conf_dir / "core-site.xml": _xml(core_site(settings)),
        hdfs_file: _xml({**hdfs_site(settings), _CSRF_HEADER: _kept(hdfs_file, _CSRF_HEADER) or token_hex(16)}),
    }
    java = [str(java_home / "bin" / "java"), *JAVA_OPTIONS, *LOGGING_OPTIONS, *_QUIET]
    on_class_path = ["-cp", ":".join(map(str, [conf_dir, *jars]))]
    environment = {"HADOOP_USER_NAME": settings.hdfs_user}
    return [
        Program(
            "namenode",
            [*java, "-Xmx256m", *on_class_path, _NAMENODE],
            folder,
            environment,
            files,
            prepare=lambda: format_namenode(folder, [*java, *on_class_path, _NAMENODE]),
        ),
        Program("datanode", [*java, "-Xmx256m", *on_class_path, _DATANODE], folder, environment, files),
    ]


def core_site(settings: Settings) -> dict[str, str]:
    """Return Hadoop's common properties."""
    return {
        "fs.defaultFS": settings.hdfs,
        "hadoop.tmp.dir": str(settings.state_dir / "hdfs" / "tmp"),
        "hadoop.http.staticuser.user": settings.hdfs_user,
        # What the daemons' page /conf leaves out, which any page may read that is served under a name of its own.
        "hadoop.security.sensitive-config-keys": f"secret$,password$,credential$,{_CSRF_HEADER}",
        # The DataNode starts beside the NameNode and should notice within a blink that it is there.
        "ipc.client.connect.retry.interval": "500",
        "ipc.client.connect.max.retries": "40",
    }


def hdfs_site(settings: Settings) -> dict[str, str]:
    """Return the HDFS properties of a one-node cluster on 127.0.0.1."""
    ports, folder = settings.ports, settings.state_dir / "hdfs"
    return {
        "dfs.replication": "1",
        # Whoever reaches this loopback port is the user of this machine.
        "dfs.permissions.enabled": "false",
        # WebHDFS takes from browsers nothing that writes or deletes without a header, which another site's page cannot
        # send; one that has made its own name lead here could, so that the header's name is nobody's to know.
        "dfs.webhdfs.rest-csrf.enabled": "true",
        "dfs.namenode.name.dir": (folder / "name").as_uri(),
        "dfs.datanode.data.dir": (folder / "data").as_uri(),
        "dfs.namenode.rpc-address": f"127.0.0.1:{ports.namenode}",
        "dfs.namenode.rpc-bind-host": "127.0.0.1",
        "dfs.namenode.http-address": f"127.0.0.1:{ports.namenode_http}",
        "dfs.namenode.http-bind-host": "127.0.0.1",
        "dfs.datanode.address": f"127.0.0.1:{ports.datanode}",
        "dfs.datanode.http.address": f"127.0.0.1:{ports.datanode_http}",
        "dfs.datanode.ipc.address": f"127.0.0.1:{ports.datanode_ipc}",
        "dfs.datanode.hostname": "127.0.0.1",
        "dfs.namenode.datanode.registration.ip-hostname-check": "false",
        # Leave safe mode as soon as the blocks are reported, and report them at once.
        "dfs.namenode.safemode.extension": "0",
        "dfs.blockreport.initialDelay": "0",
        # A dead DataNode is noticed after 10 heartbeats and twice this interval: some 11 seconds.
        "dfs.heartbeat.interval": "1",
        "dfs.namenode.heartbeat.recheck-interval": "500",
        "dfs.client.block.write.replace-datanode-on-failure.policy": "NEVER",
        # A file that is closed just before its block is reported is asked about again: not 400 ms later, as by default,
        # which half of all small files took, but for as long all the same.
        "dfs.client.block.write.locateFollowingBlock.initial.delay.ms": "10",
        "dfs.client.block.write.locateFollowingBlock.retries": "11",
    }


def format_namenode(folder: Path, namenode: list[str]) -> None:
    """Make the NameNode's storage in ``<folder>/name`` unless it holds an image of the namespace.

    It is formatted beside its place and moved there by one rename, so that a crash leaves either none or a
    whole one. A folder that is there without an image is of no use to a NameNode, but is kept under another
    name. The cluster id is always the same: DataNodes then accept a NameNode that was formatted again.

    Parameters
    ----------
    folder
        The folder of HDFS's own data.
    namenode
        Command that runs the NameNode, without arguments.

    Raises
    ------
    GenresError
        If formatting fails, with the end of its output.
    """
    place, beside = folder / "name", folder / "name.formatting"
    if any(image.suffix != ".md5" for image in place.glob("current/fsimage_*")):
        return
    if place.exists():
        place.rename(folder / f"name.unusable-{time.time_ns()}")
    command = [*namenode, "-D", f"dfs.namenode.name.dir={beside.as_uri()}", "-format", "-force", "-clusterid", "genres"]
    format_folder("namenode", beside, command, folder=folder)
    beside.rename(place)


def _kept(file: Path, name: str) -> str | None:
    """Return the value of a property in a file that was written before, so that a start changes nothing."""
    try:
        properties = ElementTree.parse(file).iter("property")  # noqa: S314 - our own file
    except (FileNotFoundError, ElementTree.ParseError):  # a file that is cut short is written again
        return None
    return next((one.findtext("value") for one in properties if one.findtext("name") == name), None)


def _xml(properties: dict[str, str]) -> str:
    configuration = ElementTree.Element("configuration")
    for name, value in properties.items():
        element = ElementTree.SubElement(configuration, "property")
        ElementTree.SubElement(element, "name").text = name
        ElementTree.SubElement(element, "value").text = value
    ElementTree.indent(configuration)
    return ElementTree.tostring(configuration, encoding="unicode", xml_declaration=True) + "\n"
