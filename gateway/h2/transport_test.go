package h2

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"math/big"
	"net"
	"testing"
	"time"
)

// transportPair returns the two ends of a TCP connection over loopback.
func transportPair(t testing.TB) (client, server net.Conn) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	client, err = net.Dial("tcp", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	server, err = l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { client.Close(); server.Close() })
	return client, server
}

// transportTLSConfigs returns configurations of a server and of a client that
// trusts it.
func transportTLSConfigs(t testing.TB) (server, client *tls.Config) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1),
		DNSNames:     []string{"gateway.test"},
		NotAfter:     time.Now().Add(time.Hour),
		IsCA:         true, BasicConstraintsValid: true,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	pool := x509.NewCertPool()
	pool.AddCert(cert)
	server = &tls.Config{
		Certificates: []tls.Certificate{{Certificate: [][]byte{der}, PrivateKey: key}},
		NextProtos:   []string{"h2", "http/1.1"},
	}
	client = &tls.Config{RootCAs: pool, ServerName: "gateway.test", NextProtos: []string{"h2"}}
	return server, client
}

// transportKinds are the ways to make two transports that talk to each other.
var transportKinds = []struct {
	name string
	tls  bool
	pipe bool
}{
	{name: "clear", tls: false},
	{name: "tls", tls: true},
	{name: "clear pipe", pipe: true},
	{name: "tls pipe", tls: true, pipe: true},
}

// transportEnds makes two transports that talk to each other, handshaken.
func transportEnds(t testing.TB, inTLS, pipe bool) (client, server *Transport) {
	t.Helper()
	var a, b net.Conn
	if pipe {
		a, b = net.Pipe()
	} else {
		a, b = transportPair(t)
	}
	if !inTLS {
		return NewTransport(a, nil), NewTransport(b, nil)
	}
	serverConfig, clientConfig := transportTLSConfigs(t)
	client, server = NewClientTLS(a, clientConfig), NewServerTLS(b, nil, serverConfig)
	done := make(chan error, 1)
	go func() { done <- server.Handshake(context.Background()) }()
	if err := client.Handshake(context.Background()); err != nil {
		t.Fatal(err)
	}
	if err := <-done; err != nil {
		t.Fatal(err)
	}
	return client, server
}

// transportWriteAll is a writer as the engine has one: it tries, and waits where
// that blocks.
func transportWriteAll(t *Transport, p []byte) error {
	for {
		n, blocked, err := t.tryWrite(p)
		p = p[n:]
		if err == nil && blocked {
			err = t.waitWrite()
		}
		if err != nil || len(p) == 0 {
			return err
		}
	}
}

func TestTransportCarriesBothWays(t *testing.T) {
	for _, kind := range transportKinds {
		t.Run(kind.name, func(t *testing.T) {
			client, server := transportEnds(t, kind.tls, kind.pipe)
			const total = 8 << 20
			errs := make(chan error, 4)
			for _, end := range []*Transport{client, server} {
				go func() { errs <- transportSend(end, total) }()
				go func() { errs <- transportReceive(end, total, 0) }()
			}
			for range 4 {
				if err := <-errs; err != nil {
					t.Error(err)
				}
			}
		})
	}
}
