"""The embedded default: HDFS, Kafka, Spark Connect and MLflow as supervised child processes on 127.0.0.1.

Everything that starts, watches and stops daemons belongs here. Nothing that production needs does: whoever
has a cluster sets its addresses in the settings, and this room stays empty.
"""
