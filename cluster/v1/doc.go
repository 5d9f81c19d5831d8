// Package clusterv1 is what gateways of one cluster tell each other, generated from
// cluster.proto.
package clusterv1
