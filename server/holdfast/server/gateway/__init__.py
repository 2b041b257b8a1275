"""What serves the network: connections and their handshake, HTTP and the browser client's files."""
