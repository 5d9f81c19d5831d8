package main

import (
	"bytes"
	"crypto/tls"
	"fmt"
)

// The RPC that everyone makes. The method ends in ".grpc" because that is how
// nghttpd comes to answer with content-type application/grpc, without which a
// reply is not gRPC.
const (
	service   = "bench.v1.Echo"
	unaryPath = "/" + service + "/Unary.grpc"
	bulkPath  = "/" + service + "/Bulk.grpc"

	unaryBytes = 105      // request and response, the 5 bytes of gRPC's prefix included
	bulkBytes  = 64 << 10 // response, prefix included
)

// requestFields are sent with every request to every proxy.
var requestFields = [][2]string{
	{"content-type", "application/grpc"},
	{"te", "trailers"},
	{"grpc-timeout", "5S"},
}

// message is a gRPC message of size bytes in all, filled with one letter.
func message(size int, fill byte) []byte {
	n := size - 5
	prefix := []byte{0, byte(n >> 24), byte(n >> 16), byte(n >> 8), byte(n)}
	return append(prefix, bytes.Repeat([]byte{fill}, n)...)
}

// The letters that the two backends fill their answers with, and requests.
var backendFill = [2]byte{'A', 'B'}

const requestFill = 'q'

// verify checks the whole of a good reply and says which backend made it.
func (r *reply) verify(size int) (backend int, err error) {
	if got := r.header[":status"]; got != "200" {
		return 0, fmt.Errorf("HTTP status %q, want 200", got)
	}
	if got := r.header["content-type"]; got != "application/grpc" {
		return 0, fmt.Errorf("content-type %q, want application/grpc", got)
	}
	if got, ok := r.trailer["grpc-status"]; !ok || got != "0" {
		return 0, fmt.Errorf("trailer %v, want grpc-status 0", r.trailer)
	}
	for i, fill := range backendFill {
		if bytes.Equal(r.body, message(size, fill)) {
			return i, nil
		}
	}
	return 0, fmt.Errorf("body of %d bytes, want the %d bytes of a backend", len(r.body), size)
}

// balance says how a proxy spread the RPCs of a probe.
type balance struct {
	// SameConn counts the RPCs of one connection by backend, Conns those of
	// one RPC each on connections of their own.
	SameConn, Conns [2]int
}

const probes = 40 // RPCs on one connection; enough to see a spread, too few to cost time

// probe makes RPCs whose replies are checked to the last byte, as h2load does
// not.
func probe(addr string, trust *tls.Config) (balance, error) {
	var b balance
	c, err := dial(addr, trust)
	if err != nil {
		return b, err
	}
	defer c.close()
	for range probes {
		i, err := c.unary(addr)
		if err != nil {
			return b, err
		}
		b.SameConn[i]++
	}
	for range 4 {
		i, err := probeOnce(addr, trust)
		if err != nil {
			return b, err
		}
		b.Conns[i]++
	}
	return b, probeBulk(c, addr)
}

// unary makes the RPC of the small rows.
func (c *client) unary(authority string) (backend int, err error) {
	r, err := c.call(authority, unaryPath, requestFields, message(unaryBytes, requestFill))
	if err != nil {
		return 0, err
	}
	return r.verify(unaryBytes)
}

func probeOnce(addr string, trust *tls.Config) (backend int, err error) {
	c, err := dial(addr, trust)
	if err != nil {
		return 0, err
	}
	defer c.close()
	return c.unary(addr)
}

func probeBulk(c *client, authority string) error {
	r, err := c.call(authority, bulkPath, requestFields, message(unaryBytes, requestFill))
	if err != nil {
		return err
	}
	_, err = r.verify(bulkBytes)
	return err
}

// check fails unless both backends were used: by the RPCs of one connection
// when the proxy balances RPCs, by those of several when it balances
// connections.
func (b balance) check(perRPC bool) error {
	seen, of := b.SameConn, "one connection"
	if !perRPC {
		seen, of = b.Conns, "several connections"
	}
	if seen[0] == 0 || seen[1] == 0 {
		return fmt.Errorf("the RPCs of %s went %d : %d to the two backends", of, seen[0], seen[1])
	}
	return nil
}

// probeFeatures checks that a proxy does for each RPC what it is measured with:
// it enforces the caller's deadline, and it routes by the service's name.
func probeFeatures(addr string) error {
	c, err := dial(addr, nil)
	if err != nil {
		return err
	}
	defer c.close()
	late := [][2]string{requestFields[0], requestFields[1], {"grpc-timeout", "1n"}}
	r, err := c.call(addr, unaryPath, late, message(unaryBytes, requestFill))
	if err != nil {
		return fmt.Errorf("RPC with a deadline of 1 ns: %w", err)
	}
	if got := r.status(); got != 4 {
		return fmt.Errorf("RPC with a deadline of 1 ns: grpc-status %d, want 4 (DEADLINE_EXCEEDED)", got)
	}
	r, err = c.call(addr, "/bench.v1.Nobody/Unary", requestFields, message(unaryBytes, requestFill))
	if err != nil {
		return fmt.Errorf("RPC to a service that no route has: %w", err)
	}
	if got := r.status(); got != 12 {
		return fmt.Errorf("RPC to a service that no route has: grpc-status %d, want 12 (UNIMPLEMENTED)", got)
	}
	return nil
}
