//! Who a node is: the cluster's certificate authority, node certificates, join tokens, mutual TLS.
