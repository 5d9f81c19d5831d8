// Package demo is what `sluice demo` puts behind a gateway and in front of
// it: an example gRPC service in several versions, and a bounded load that
// calls all of its methods. It knows nothing of the gateway; both ends speak
// plain gRPC over the loopback interface.
package demo
