"""Orientaciones SPS: which services, where and with what papers, and a thread of messages both ways."""
