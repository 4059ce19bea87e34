"""The conformance kit: every manifest and every third party's kind against the same cases, over real sockets."""
