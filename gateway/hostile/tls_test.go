package hostile

import (
	"crypto/aes"
	"crypto/cipher"
	"crypto/hkdf"
	"crypto/sha256"
	"crypto/tls"
	"encoding/binary"
	"encoding/hex"
	"io"
	"net"
	"os"
	"strings"
	"testing"
	"time"

	"golang.org/x/net/http2"
)

// rekeyer writes TLS 1.3 records by itself, from where crypto/tls has left the
// connection: it asks for new keys as often as it likes (RFC 8446 section 7.2).
type rekeyer struct {
	secret []byte
	aead   cipher.AEAD
	iv     []byte
	seq    uint64
}

// newRekeyer takes over the sending half of a connection whose handshake has
// logged its secrets.
func newRekeyer(t *testing.T, log string) *rekeyer {
	t.Helper()
	k := &rekeyer{}
	for line := range strings.Lines(log) {
		if f := strings.Fields(line); f[0] == "CLIENT_TRAFFIC_SECRET_0" {
			k.secret, _ = hex.DecodeString(f[2])
		}
	}
	if k.secret == nil {
		t.Fatal("the handshake was not TLS 1.3")
	}
	k.derive(t)
	return k
}

func (k *rekeyer) derive(t *testing.T) {
	block, err := aes.NewCipher(k.expand(t, "key", 16))
	if err != nil {
		t.Fatal(err)
	}
	if k.aead, err = cipher.NewGCM(block); err != nil {
		t.Fatal(err)
	}
	k.iv, k.seq = k.expand(t, "iv", 12), 0
}

// expand is HKDF-Expand-Label with an empty context, RFC 8446 section 7.1.
func (k *rekeyer) expand(t *testing.T, label string, n int) []byte {
	info := binary.BigEndian.AppendUint16(nil, uint16(n))
	info = append(info, byte(6+len(label)))
	info = append(append(info, "tls13 "+label...), 0)
	out, err := hkdf.Expand(sha256.New, k.secret, string(info), n)
	if err != nil {
		t.Fatal(err)
	}
	return out
}

// record seals a record of some type, RFC 8446 section 5.2.
func (k *rekeyer) record(typ byte, p []byte) []byte {
	n := len(p) + 1 + k.aead.Overhead()
	head := []byte{23, 3, 3, byte(n >> 8), byte(n)}
	nonce := append([]byte(nil), k.iv...)
	for i := range 8 {
		nonce[11-i] ^= byte(k.seq >> (8 * i))
	}
	k.seq++
	return k.aead.Seal(head, nonce, append(append([]byte(nil), p...), typ), head)
}

// update asks for new keys of the server's and changes its own.
func (k *rekeyer) update(t *testing.T) []byte {
	r := k.record(22, []byte{24, 0, 0, 1, 1})
	k.secret = k.expand(t, "traffic upd", 32)
	k.derive(t)
	return r
}

func TestA26KeyUpdateFlood(t *testing.T) {
	var cfg nodeConfig
	client := secured(t, &cfg)
	r := newRig(t, cfg)
	client.MinVersion = tls.VersionTLS13
	for _, test := range []struct {
		name  string
		reads bool
	}{{"read", true}, {"unread", false}} {
		nc, err := net.Dial("tcp", r.addr)
		if err != nil {
			t.Fatal(err)
		}
		defer nc.Close()
		var log strings.Builder
		conn := client.Clone()
		conn.KeyLogWriter = &log
		if err := tls.Client(nc, conn).Handshake(); err != nil {
			t.Fatal(err)
		}
		k := newRekeyer(t, log.String())
		flood := k.record(23, script{}.preface().settings())
		n := pick(5000, 100_000)
		for range n {
			// Something must come between them, or crypto/tls has had enough first.
			flood = append(append(flood, k.update(t)...), k.record(23, script{}.frame(0xfa, 0, 0))...)
		}
		tr := r.begin("key updates, " + test.name)
		if test.reads {
			go io.Copy(io.Discard, nc)
		}
		nc.SetWriteDeadline(time.Now().Add(patience))
		nc.Write(flood)
		if !eventually(patience, func() bool { return tr.counters(t)["sluice_conn_open{side=\"downstream\"}"] == 1 }) {
			t.Errorf("%s: connection is open after %d key updates", test.name, n)
		}
		tr.expect(closed("downstream", "tls_replies"), 1)
		nc.Close()
		tr.judge(cost{cpu: 200 * time.Millisecond, memory: 32 << 20})
	}
}

// splitter writes each byte of a handshake, as far as it is in clear, in a record of
// its own.
type splitter struct {
	net.Conn
	sealed bool
}

func (s *splitter) Write(p []byte) (int, error) {
	total := len(p)
	for len(p) >= 5 {
		n := 5 + int(binary.BigEndian.Uint16(p[3:]))
		record := p[:n]
		p = p[n:]
		s.sealed = s.sealed || record[0] == 20 // change_cipher_spec
		if record[0] != 22 || s.sealed {
			if _, err := s.Conn.Write(record); err != nil {
				return 0, err
			}
			continue
		}
		var out []byte
		for _, b := range record[5:] {
			out = append(out, 22, record[1], record[2], 0, 1, b)
		}
		if _, err := s.Conn.Write(out); err != nil {
			return 0, err
		}
	}
	return total, nil
}

// handshake opens TLS and asks for something; it returns what came of it.
func handshake(addr string, cfg *tls.Config, split bool) (state tls.ConnectionState, err error) {
	nc, err := net.Dial("tcp", addr)
	if err != nil {
		return state, err
	}
	defer nc.Close()
	nc.SetDeadline(time.Now().Add(patience))
	if split {
		nc = &splitter{Conn: nc}
	}
	tc := tls.Client(nc, cfg)
	if err := tc.Handshake(); err != nil {
		return state, err
	}
	// In TLS 1.3 a client knows that it was let in when it is answered.
	tc.Write(script{}.preface().settings())
	first := make([]byte, 9)
	if _, err := io.ReadFull(tc, first); err != nil {
		return state, err
	}
	if http2.FrameType(first[3]) != http2.FrameSettings {
		return state, io.ErrUnexpectedEOF
	}
	// A ticket follows the handshake; it is taken by a read.
	tc.Write(script{}.ping())
	io.ReadFull(tc, make([]byte, 9))
	return tc.ConnectionState(), nil
}

// A client certificate is asked for however the hello is cut, and one whose
// authority has gone is not let in by an old ticket.
func TestA26ClientCertificates(t *testing.T) {
	dir := t.TempDir()
	server, old, next := newAuthority(t, "server"), newAuthority(t, "old"), newAuthority(t, "next")
	cfg := nodeConfig{}
	l := &cfg.Gateway.Listen
	l.TLSCert, l.TLSKey = server.files(dir, good)
	l.TLSClientCA = old.file(dir + "/clients.crt")
	r := newRigHere(t, cfg)
	with := func(certs ...tls.Certificate) *tls.Config {
		return &tls.Config{RootCAs: server.pool(), ServerName: good, NextProtos: []string{"h2"}, Certificates: certs}
	}
	known, stranger := old.leaf("client"), next.leaf("client")
	for _, test := range []struct {
		name  string
		cfg   *tls.Config
		split bool
		in    bool
	}{
		{"known", with(known), false, true},
		{"known, byte by byte", with(known), true, true},
		{"none", with(), false, false},
		{"none, byte by byte", with(), true, false},
		{"of another authority", with(stranger), false, false},
		{"of another authority, byte by byte", with(stranger), true, false},
	} {
		for _, version := range []uint16{tls.VersionTLS12, tls.VersionTLS13} {
			test.cfg.MinVersion, test.cfg.MaxVersion = version, version
			_, err := handshake(r.addr, test.cfg, test.split)
			if (err == nil) != test.in {
				t.Errorf("%s, %s: %v, want let in %v", test.name, tls.VersionName(version), err, test.in)
			}
		}
	}

	ticket := with(known)
	ticket.ClientSessionCache = tls.NewLRUClientSessionCache(4)
	handshake(r.addr, ticket, false)
	if state, err := handshake(r.addr, ticket, false); err != nil || !state.DidResume {
		t.Fatalf("second handshake: %v, resumed %v, want a resumption", err, state.DidResume)
	}
	if err := os.Rename(next.file(dir+"/next.crt"), l.TLSClientCA); err != nil {
		t.Fatal(err)
	}
	if !eventually(patience, func() bool {
		_, err := handshake(r.addr, with(stranger), false)
		return err == nil
	}) {
		t.Fatal("the new authority is not in force after 10s")
	}
	if state, err := handshake(r.addr, ticket, false); err == nil {
		t.Errorf("an old ticket let in a client whose authority has gone, resumed %v", state.DidResume)
	}
}
