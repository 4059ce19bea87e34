"""Files as an exchange: formats, folders and SFTP servers, whole registers as rows."""
