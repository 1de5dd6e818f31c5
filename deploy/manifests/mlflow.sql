-- Run once by the PostgreSQL image, when its data folder is empty.
CREATE DATABASE mlflow;
