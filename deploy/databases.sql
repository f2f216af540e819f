-- Run once, when Postgres starts with an empty folder.
CREATE DATABASE genres;
CREATE DATABASE dagster;
CREATE DATABASE mlflow;
