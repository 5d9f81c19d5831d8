package main

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"sync"
	"time"

	"google.golang.org/protobuf/encoding/protowire"
)

// The shim is this program again, started by connectconformance as the server
// under test: it starts the suite's grpc-go server, a gateway before it, and
// answers with the gateway's address. With -direct a bare TLS terminator takes
// the gateway's place, since that server speaks none.
const (
	shimArg      = "shim"
	shimSluice   = "CONFORMANCE_SHIM_SLUICE" // empty means no gateway
	shimServer   = "CONFORMANCE_SHIM_SERVER"
	shimDir      = "CONFORMANCE_SHIM_DIR"
	shimSchema   = "CONFORMANCE_SHIM_SCHEMA" // file of a resource; empty means none
	shimNotes    = "gateway-*.note"          // a shimNote of each shim
	maxShimInput = 1 << 20                   // bytes; the suite sends some hundreds
)

func shimEnv(r *rig, dir, server string) []string {
	env := []string{shimServer + "=" + r.tool(server), shimDir + "=" + dir}
	if !r.opts.direct {
		env = append(env, shimSluice+"="+r.opts.sluice)
	}
	return env
}

// Field numbers of connectrpc.conformance.v1, whose Go package is internal to
// the suite.
const (
	requestProtocol   = 1
	requestVersion    = 2
	requestUseTLS     = 4
	requestClientCert = 5
	requestCreds      = 7
	credsCert         = 1
	credsKey          = 2
	responsePort      = 2
	responseHost      = 1
	responseCert      = 3
)

func runShim(ctx context.Context) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	go cancelWithParent(ctx, cancel)
	raw, err := readDelimited(os.Stdin)
	if err != nil {
		return fmt.Errorf("read server settings: %w", err)
	}
	want, err := parseShimRequest(raw)
	if err != nil {
		return fmt.Errorf("parse server settings: %w", err)
	}
	sluice := os.Getenv(shimSluice)
	server, addr, err := startReference(want.behind(sluice != ""))
	if err != nil {
		return err
	}
	defer server.Process.Kill()

	dir, err := os.MkdirTemp(os.Getenv(shimDir), "shim-")
	if err != nil {
		return err
	}
	if err := want.writeFiles(dir); err != nil {
		return err
	}
	if sluice == "" {
		return want.serveBare(ctx, dir, addr)
	}
	return want.serveGateway(ctx, sluice, dir, addr)
}

// cancelWithParent ends a shim whose suite was killed, which would else keep
// its gateway for ever.
func cancelWithParent(ctx context.Context, cancel context.CancelFunc) {
	parent := os.Getppid()
	tick := time.NewTicker(time.Second)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
			if os.Getppid() != parent {
				cancel()
			}
		}
	}
}

// shimRequest is what the suite asks of the server under test.
type shimRequest struct {
	secure            bool
	clientCA          []byte // PEM; empty asks for no client certificate
	cert, key         []byte // PEM
	certFile, keyFile string // empty unless secure
	clientCAFile      string // empty unless clientCA
	plain             []byte // the same request less all of TLS
	version           int    // of HTTP
}

// Numbers of the suite's enums.
const (
	protocolGRPC = 2
	versionTwo   = 2
)

// behind is the request for the server that stands behind: with a gateway before it, it
// speaks native gRPC, whatever the suite speaks.
func (req *shimRequest) behind(gateway bool) []byte {
	if !gateway {
		return req.plain
	}
	// Of a field that is there twice, the last one counts.
	msg := append([]byte(nil), req.plain...)
	msg = protowire.AppendVarint(protowire.AppendTag(msg, requestProtocol, protowire.VarintType), protocolGRPC)
	return protowire.AppendVarint(protowire.AppendTag(msg, requestVersion, protowire.VarintType), versionTwo)
}

func parseShimRequest(raw []byte) (*shimRequest, error) {
	req := &shimRequest{}
	for rest := raw; len(rest) > 0; {
		num, kind, n := protowire.ConsumeTag(rest)
		if n < 0 {
			return nil, protowire.ParseError(n)
		}
		size := protowire.ConsumeFieldValue(num, kind, rest[n:])
		if size < 0 {
			return nil, protowire.ParseError(size)
		}
		value := rest[n : n+size]
		switch num {
		case requestUseTLS:
			on, _ := protowire.ConsumeVarint(value)
			req.secure = on != 0
		case requestClientCert:
			req.clientCA, _ = protowire.ConsumeBytes(value)
		case requestCreds:
			creds, _ := protowire.ConsumeBytes(value)
			req.cert, req.key = bytesField(creds, credsCert), bytesField(creds, credsKey)
		default:
			req.plain = append(req.plain, rest[:n+size]...)
		}
		rest = rest[n+size:]
	}
	req.version = int(varintField(req.plain, requestVersion))
	return req, nil
}

// bytesField returns the last value of a length-delimited field, or nil.
func bytesField(msg []byte, want protowire.Number) []byte {
	var found []byte
	for len(msg) > 0 {
		num, kind, n := protowire.ConsumeTag(msg)
		if n < 0 {
			return nil
		}
		size := protowire.ConsumeFieldValue(num, kind, msg[n:])
		if size < 0 {
			return nil
		}
		if num == want && kind == protowire.BytesType {
			found, _ = protowire.ConsumeBytes(msg[n:])
		}
		msg = msg[n+size:]
	}
	return found
}

func varintField(msg []byte, want protowire.Number) uint64 {
	var found uint64
	for len(msg) > 0 {
		num, kind, n := protowire.ConsumeTag(msg)
		if n < 0 {
			return 0
		}
		size := protowire.ConsumeFieldValue(num, kind, msg[n:])
		if size < 0 {
			return 0
		}
		if num == want && kind == protowire.VarintType {
			found, _ = protowire.ConsumeVarint(msg[n:])
		}
		msg = msg[n+size:]
	}
	return found
}

func (req *shimRequest) writeFiles(dir string) error {
	if !req.secure {
		return nil
	}
	req.certFile, req.keyFile = filepath.Join(dir, "cert.pem"), filepath.Join(dir, "key.pem")
	err := errors.Join(os.WriteFile(req.certFile, req.cert, 0o600), os.WriteFile(req.keyFile, req.key, 0o600))
	if len(req.clientCA) > 0 {
		req.clientCAFile = filepath.Join(dir, "client-ca.pem")
		err = errors.Join(err, os.WriteFile(req.clientCAFile, req.clientCA, 0o600))
	}
	return err
}

// startReference starts the suite's server and returns where it listens.
func startReference(request []byte) (*exec.Cmd, string, error) {
	cmd := exec.Command(os.Getenv(shimServer))
	cmd.Stderr = os.Stderr
	stdin, err := cmd.StdinPipe()
	if err != nil {
		return nil, "", err
	}
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		return nil, "", err
	}
	if err := cmd.Start(); err != nil {
		return nil, "", fmt.Errorf("start reference server: %w", err)
	}
	if err := writeDelimited(stdin, request); err != nil {
		return nil, "", fmt.Errorf("configure reference server: %w", err)
	}
	resp, err := readDelimited(stdout)
	if err != nil {
		return nil, "", fmt.Errorf("read reference server's address: %w", err)
	}
	port := varintField(resp, responsePort)
	return cmd, net.JoinHostPort("127.0.0.1", strconv.FormatUint(port, 10)), nil
}

// serveGateway ends when the suite has had enough, and leaves a note of how the
// gateway did: nobody reads a shim's exit code.
func (req *shimRequest) serveGateway(ctx context.Context, sluice, dir, addr string) error {
	config := resources(backend{name: "connect", address: addr})
	if file := os.Getenv(shimSchema); file != "" {
		text, err := os.ReadFile(file)
		if err != nil {
			return err
		}
		config += "---\n" + string(text)
	}
	gw, err := startGateway(ctx, gatewayConfig{
		sluice:    sluice,
		resources: config,
		cert:      req.certFile,
		key:       req.keyFile,
		clientCA:  req.clientCAFile,
		log:       os.Stderr,
	})
	if err != nil {
		return err
	}
	if err := req.answer(gw.listen); err != nil {
		gw.stop()
		return err
	}
	<-ctx.Done()

	// The suite gives a server five seconds to go, so what is known is written first.
	name := filepath.Join(filepath.Dir(dir), fmt.Sprintf("gateway-%d.note", os.Getpid()))
	n := shimNote{Version: req.version}
	n.Paths, err = gw.paths(context.WithoutCancel(ctx))
	n.add(err)
	if err := n.write(name); err != nil {
		gw.stop()
		return err
	}
	n.add(gw.stop())
	return n.write(name)
}

// shimNote is what a shim tells about its gateway.
type shimNote struct {
	Version int // of HTTP
	Paths   paths
	Faults  []string
}

func (n *shimNote) add(err error) {
	if err != nil {
		n.Faults = append(n.Faults, err.Error())
	}
}

func (n *shimNote) write(path string) error {
	text, err := json.Marshal(n)
	if err != nil {
		return err
	}
	return os.WriteFile(path, text, 0o600)
}

// answer tells the suite where to connect, with the certificate to trust.
func (req *shimRequest) answer(addr string) error {
	host, port, err := net.SplitHostPort(addr)
	if err != nil {
		return err
	}
	n, err := strconv.ParseUint(port, 10, 16)
	if err != nil {
		return err
	}
	var msg []byte
	msg = protowire.AppendTag(msg, responseHost, protowire.BytesType)
	msg = protowire.AppendString(msg, host)
	msg = protowire.AppendTag(msg, responsePort, protowire.VarintType)
	msg = protowire.AppendVarint(msg, n)
	if req.secure {
		msg = protowire.AppendTag(msg, responseCert, protowire.BytesType)
		msg = protowire.AppendBytes(msg, req.cert)
	}
	return writeDelimited(os.Stdout, msg)
}

// serveBare is the way without a gateway.
func (req *shimRequest) serveBare(ctx context.Context, dir, addr string) error {
	if !req.secure {
		if err := req.answer(addr); err != nil {
			return err
		}
		<-ctx.Done()
		return nil
	}
	pair, err := tls.X509KeyPair(req.cert, req.key)
	if err != nil {
		return err
	}
	conf := &tls.Config{Certificates: []tls.Certificate{pair}, NextProtos: req.protocols()}
	if len(req.clientCA) > 0 {
		conf.ClientCAs, conf.ClientAuth = x509.NewCertPool(), tls.RequireAndVerifyClientCert
		conf.ClientCAs.AppendCertsFromPEM(req.clientCA)
	}
	l, err := tls.Listen("tcp", "127.0.0.1:0", conf)
	if err != nil {
		return err
	}
	defer l.Close()
	context.AfterFunc(ctx, func() { l.Close() })
	if err := req.answer(l.Addr().String()); err != nil {
		return err
	}
	for {
		nc, err := l.Accept()
		if err != nil {
			return nil
		}
		go splice(nc, addr)
	}
}

// protocols are what ALPN offers.
func (req *shimRequest) protocols() []string {
	if req.version == versionTwo {
		return []string{"h2"}
	}
	return []string{"http/1.1"}
}

// splice copies both ways until either side is done.
func splice(nc net.Conn, addr string) {
	defer nc.Close()
	up, err := net.Dial("tcp", addr)
	if err != nil {
		return
	}
	defer up.Close()
	var wg sync.WaitGroup
	wg.Go(func() { io.Copy(up, nc); up.Close() })
	wg.Go(func() { io.Copy(nc, up); nc.Close() })
	wg.Wait()
}

func readDelimited(in io.Reader) ([]byte, error) {
	var size [4]byte
	if _, err := io.ReadFull(in, size[:]); err != nil {
		return nil, err
	}
	n := binary.BigEndian.Uint32(size[:])
	if n > maxShimInput {
		return nil, fmt.Errorf("message of %d bytes, limit %d", n, maxShimInput)
	}
	msg := make([]byte, n)
	_, err := io.ReadFull(in, msg)
	return msg, err
}

func writeDelimited(out io.Writer, msg []byte) error {
	_, err := out.Write(append(binary.BigEndian.AppendUint32(nil, uint32(len(msg))), msg...))
	return err
}
