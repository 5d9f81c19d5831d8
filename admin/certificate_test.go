package admin

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

func TestNeedsTLSOffLoopback(t *testing.T) {
	for listen, want := range map[string]bool{
		"127.0.0.1:8081": false, "127.8.9.1:1": false, "localhost:8081": false, "[::1]:8081": false, "[::ffff:127.0.0.1]:1": false,
		":8081": true, "0.0.0.0:8081": true, "[::]:8081": true, "10.0.0.1:8081": true, "gate.example:8081": true,
		"localhost.evil.test:1": true, "nonsense": true, "": true,
	} {
		if got := NeedsTLS(listen); got != want {
			t.Errorf("%q: %v, want %v", listen, got, want)
		}
	}
}

func TestSelfSignedIsMadeOnce(t *testing.T) {
	dir, now := t.TempDir(), time.Now()
	hosts := []string{"gate.example", "192.0.2.7"}
	first, err := SelfSigned(dir, hosts, now)
	if err != nil {
		t.Fatal(err)
	}
	if !first.Made || len(first.Fingerprint) != 32*3-1 {
		t.Errorf("made %v, fingerprint %s", first.Made, first.Fingerprint)
	}
	pair, err := tls.LoadX509KeyPair(first.CertFile, first.KeyFile)
	if err != nil {
		t.Fatal(err)
	}
	if key, ok := pair.PrivateKey.(*ecdsa.PrivateKey); !ok || key.Curve != elliptic.P256() {
		t.Errorf("key is a %T", pair.PrivateKey)
	}
	for _, host := range append(hosts, "localhost", "127.0.0.1", machineName()) {
		if err := pair.Leaf.VerifyHostname(host); err != nil {
			t.Error(err)
		}
	}
	pool := x509.NewCertPool()
	pool.AddCert(pair.Leaf)
	if _, err := pair.Leaf.Verify(x509.VerifyOptions{DNSName: "gate.example", Roots: pool, CurrentTime: now}); err != nil {
		t.Errorf("a client that was told to trust it: %v", err)
	}
	for _, file := range []string{first.CertFile, first.KeyFile} {
		info, err := os.Stat(file)
		if err != nil || info.Mode().Perm() != 0o600 {
			t.Errorf("%s: mode %v, %v", file, info.Mode(), err)
		}
	}
	again, err := SelfSigned(dir, hosts, now.Add(300*24*time.Hour))
	if err != nil || again.Made || again.Fingerprint != first.Fingerprint {
		t.Errorf("at the next start: %+v, %v; want the same", again, err)
	}
}

func TestSelfSignedIsMadeAgainWhenItIsNoGood(t *testing.T) {
	now := time.Now()
	for _, tc := range []struct {
		name  string
		hosts []string
		later time.Duration
		spoil func(c *Certificate) error
	}{
		{"it ends soon", nil, selfSignedLifetime - selfSignedRenewal + time.Hour, nil},
		{"it has ended", nil, 2 * selfSignedLifetime, nil},
		{"the clock was set back", nil, -2 * time.Hour, nil},
		{"a further name", []string{"new.example"}, 0, nil},
		{"the key is gone", nil, 0, func(c *Certificate) error { return os.Remove(c.KeyFile) }},
		{"the key is another", nil, 0, func(c *Certificate) error {
			other, err := SelfSigned(filepath.Join(filepath.Dir(c.KeyFile), "other"), nil, now)
			if err != nil {
				return err
			}
			return os.Rename(other.KeyFile, c.KeyFile)
		}},
		{"the certificate is cut short", nil, 0, func(c *Certificate) error { return os.Truncate(c.CertFile, 100) }},
	} {
		t.Run(tc.name, func(t *testing.T) {
			dir := t.TempDir()
			if err := os.Mkdir(filepath.Join(dir, "other"), 0o700); err != nil {
				t.Fatal(err)
			}
			first, err := SelfSigned(dir, nil, now)
			if err != nil {
				t.Fatal(err)
			}
			if tc.spoil != nil {
				if err := tc.spoil(first); err != nil {
					t.Fatal(err)
				}
			}
			again, err := SelfSigned(dir, tc.hosts, now.Add(tc.later))
			if err != nil || !again.Made || again.Fingerprint == first.Fingerprint {
				t.Errorf("got %+v, %v; want another", again, err)
			}
			if _, err := tls.LoadX509KeyPair(again.CertFile, again.KeyFile); err != nil {
				t.Error(err)
			}
			if left, _ := filepath.Glob(filepath.Join(dir, "admin.*")); len(left) != 2 {
				t.Errorf("files: %v", left)
			}
		})
	}
	if _, err := SelfSigned(filepath.Join(t.TempDir(), "gone"), nil, now); err == nil || !strings.HasPrefix(err.Error(), "make certificate of the admin port: ") {
		t.Errorf("no directory: %v", err)
	}
}

// What cannot be replaced is served while it is good: the disk is full when the key
// is written, or when only the certificate is left to write.
func TestSelfSignedIsKeptWhenItCannotBeMadeAgain(t *testing.T) {
	now := time.Now()
	soon := now.Add(selfSignedLifetime - selfSignedRenewal + time.Hour)
	for _, tc := range []struct {
		name  string
		hosts []string
		at    time.Time
		keeps bool
	}{
		{"it ends soon", nil, soon, true},
		{"it has ended", nil, now.Add(selfSignedLifetime + time.Hour), false},
		{"a further name", []string{"new.example"}, now, false},
		{"the clock was set back", nil, now.Add(-2 * time.Hour), false},
	} {
		t.Run(tc.name, func(t *testing.T) {
			dir := t.TempDir()
			first, err := SelfSigned(dir, nil, now)
			if err != nil {
				t.Fatal(err)
			}
			for _, full := range []string{first.KeyFile, first.CertFile} {
				again, err := selfSigned(dir, tc.hosts, tc.at, func(name string, text []byte) (string, error) {
					if name == full {
						return "", errDisk
					}
					return writeBeside(name, text)
				})
				switch {
				case !tc.keeps:
					if !errors.Is(err, errDisk) {
						t.Errorf("got %+v, %v; want an error", again, err)
					}
				case err != nil || again.Made || !errors.Is(again.Kept, errDisk) || again.Fingerprint != first.Fingerprint:
					t.Errorf("got %+v, %v; want the one that was there", again, err)
				}
				if left, _ := filepath.Glob(filepath.Join(dir, "admin.*")); len(left) != 2 {
					t.Errorf("files: %v", left)
				}
				if _, err := tls.LoadX509KeyPair(first.CertFile, first.KeyFile); err != nil {
					t.Error(err)
				}
			}
		})
	}
}
