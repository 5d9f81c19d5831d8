package admin

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"connectrpc.com/connect"

	adminv1 "sluice/admin/v1"
)

func TestPasswordHashHasTheStandardCost(t *testing.T) {
	p := newPasswords(standardCost)
	began := time.Now()
	hash, err := p.hash(t.Context(), goodPassword, false)
	if err != nil {
		t.Fatal(err)
	}
	t.Logf("one hash took %v", time.Since(began))
	if !strings.HasPrefix(hash, "$argon2id$v=19$m=19456,t=2,p=1$") {
		t.Errorf("hash %s", hash)
	}
	for password, want := range map[string]bool{goodPassword: true, goodPassword + " ": false, "": false, strings.ToUpper(goodPassword): false} {
		if good, err := p.verify(t.Context(), hash, password, false); good != want || err != nil {
			t.Errorf("%q: %v, %v; want %v", password, good, err, want)
		}
	}
	if other, _ := p.hash(t.Context(), goodPassword, false); other == hash {
		t.Error("two hashes of one password are the same")
	}
	if good, err := p.verify(t.Context(), p.nobody, "", false); good || err != nil {
		t.Errorf("the hash of nobody: %v, %v", good, err)
	}
}

// The hash of another program, by the reference implementation's command line.
func TestPasswordHashIsTheOneOfOthers(t *testing.T) {
	p := newPasswords(cheap)
	const hash = "$argon2id$v=19$m=65536,t=2,p=1$c29tZXNhbHQ$CTFhFdXPJO1aFaMaO6Mm5c8y7cJHAph8ArZWb2GRPPc"
	if good, err := p.verify(t.Context(), hash, "password", false); !good || err != nil {
		t.Errorf("%v, %v; want a match", good, err)
	}
	if !p.outdated(hash) {
		t.Error("a hash of another cost is up to date")
	}
}

func TestPasswordHashThatCannotBeReadIsRefused(t *testing.T) {
	p := newPasswords(cheap)
	good, err := p.hash(t.Context(), goodPassword, false)
	if err != nil {
		t.Fatal(err)
	}
	for _, hash := range []string{
		"", "x", "$argon2id$", strings.Replace(good, "argon2id", "argon2i", 1), strings.Replace(good, "v=19", "v=16", 1),
		strings.Replace(good, "m=8", "m=4294967295", 1), strings.Replace(good, "t=1", "t=0", 1), strings.Replace(good, "t=1", "t=4294967295", 1),
		strings.Replace(good, "p=1", "p=0", 1), strings.Replace(good, "m=8", "m=-8", 1), good[:len(good)-4], good + "$", good + "*",
	} {
		if ok, err := p.verify(t.Context(), hash, goodPassword, false); ok || !errors.Is(err, errPasswordHash) {
			t.Errorf("%q: %v, %v; want %v", hash, ok, err, errPasswordHash)
		}
	}
}

func FuzzPasswordHash(f *testing.F) {
	f.Add("$argon2id$v=19$m=8,t=1,p=1$c29tZXNhbHQ$CTFhFdXPJO1aFaMaO6Mm5c8y7cJHAph8ArZWb2GRPPc")
	f.Add("$argon2id$v=19$m=,t=,p=$$")
	f.Fuzz(func(t *testing.T, encoded string) {
		c, salt, hash, err := decodePassword(encoded)
		if err != nil {
			return
		}
		if !c.bearable() || len(hash) != hashBytes {
			t.Errorf("%q: cost %v, hash of %d bytes", encoded, c, len(hash))
		}
		again, salt2, hash2, err := decodePassword(encodePassword(c, salt, hash))
		if err != nil || again != c || string(salt2) != string(salt) || string(hash2) != string(hash) {
			t.Errorf("%q is not what it is read as", encoded)
		}
	})
}

// Strangers who fill their places do not keep those out who are known.
func TestPasswordsBoundHashesAtATime(t *testing.T) {
	p := newPasswords(cheap)
	hold, held := make(chan struct{}), make(chan struct{})
	p.derive = func(password, salt []byte, c passwordCost) []byte {
		held <- struct{}{}
		<-hold
		return deriveArgon2(password, salt, c)
	}
	done := make(chan error)
	hash := func(ctx context.Context, known bool) {
		_, err := p.hash(ctx, goodPassword, known)
		done <- err
	}
	ctx, leave := context.WithCancel(t.Context())
	for range hashesOfStrangers {
		go hash(t.Context(), false)
		<-held
	}
	go hash(ctx, false) // waits
	go hash(t.Context(), true)
	<-held
	leave()
	if err := <-done; !errors.Is(err, context.Canceled) {
		t.Errorf("who waits and leaves: %v", err)
	}
	close(hold)
	for range hashesOfStrangers + 1 {
		if err := <-done; err != nil {
			t.Error(err)
		}
	}
}

// A hash of another cost is replaced when its password is shown.
func TestSignInRenewsTheHash(t *testing.T) {
	s := newSite(t)
	s.addAccount(t, "alice", adminv1.Role_ROLE_ADMIN)
	s.passwords.cost.passes = 3
	for range 2 {
		if err := s.browser().signIn(t.Context(), "alice", goodPassword); err != nil {
			t.Fatal(err)
		}
	}
	if state := s.records.state(); !strings.Contains(state, "m=8,t=3,p=1") || strings.Contains(state, "m=8,t=1,p=1") {
		t.Errorf("records:\n%s", state)
	}
}

func TestPasswordFileMakesTheAdministrator(t *testing.T) {
	file := filepath.Join(t.TempDir(), "password")
	write := func(text string) {
		if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	records := newMemoryRecords()
	start := func() *site {
		s := newSite(t, func(cfg *AccessConfig) { cfg.PasswordFile, cfg.Records = file, records })
		s.records = records
		return s
	}
	wantPassword := func(s *site, password string) {
		t.Helper()
		if err := s.local().signIn(t.Context(), "admin", password); err != nil {
			t.Errorf("%q: %v", password, err)
		}
	}

	write("first " + goodPassword + "\n")
	s := start()
	wantPassword(s, "first "+goodPassword)
	if needs, err := s.NeedsSetUp(); needs || err != nil {
		t.Errorf("needs set-up: %v, %v", needs, err)
	}
	if line := s.lines(t)[1]; line.Action != "PasswordFile" || line.Actor != "password file" || line.Changes[0].Action != "create" {
		t.Errorf("audit line %v", line)
	}

	s = start() // the same file: nothing changes, sessions go on
	if n := strings.Count(s.records.state(), "session/"); n != 1 {
		t.Errorf("%d sessions after a restart, want 1", n)
	}
	_, err := s.local().access().UpdateAccount(t.Context(), connect.NewRequest(&adminv1.UpdateAccountRequest{Name: "admin", Password: "second " + goodPassword}))
	if err != nil {
		t.Fatal(err)
	}
	s = start() // the same file: the change since then stays
	wantPassword(s, "second "+goodPassword)

	write("third " + goodPassword + "\r\n")
	s = start() // another file: it counts
	wantPassword(s, "third "+goodPassword)
	if n := strings.Count(s.records.state(), "session/"); n != 1 {
		t.Errorf("%d sessions, want that of now alone", n)
	}
	s = start()
	wantPassword(s, "third "+goodPassword)

	// An account of that name that somebody made becomes what the file says.
	records = newMemoryRecords()
	if err := records.Update(func(tx RecordsTx) error {
		return put(tx, accountKey("admin"), &account{Name: "admin", Role: adminv1.Role_ROLE_VIEWER})
	}); err != nil {
		t.Fatal(err)
	}
	s = start()
	wantPassword(s, "third "+goodPassword)
	if needs, err := s.NeedsSetUp(); needs || err != nil {
		t.Errorf("needs set-up: %v, %v", needs, err)
	}
}

func TestPasswordFileThatCannotBeUsed(t *testing.T) {
	dir := t.TempDir()
	for _, tc := range []struct{ name, text, want string }{
		{"empty", "", "password of 0 characters, want at least 12"},
		{"short", "short\n", "password of 5 characters"},
		{"two lines", goodPassword + "\nx\n", "without control characters"},
		{"long", strings.Repeat("long ", 1<<20), "limit 1024"},
		{"not text", goodPassword + "\xff", "want text"},
	} {
		file := filepath.Join(dir, tc.name)
		if err := os.WriteFile(file, []byte(tc.text), 0o600); err != nil {
			t.Fatal(err)
		}
		_, err := NewAccess(AccessConfig{Records: newMemoryRecords(), PasswordFile: file, cost: cheap})
		if err == nil || !strings.HasPrefix(err.Error(), "read admin password from "+file+": ") || !strings.Contains(err.Error(), tc.want) {
			t.Errorf("%s: %v, want %s", tc.name, err, tc.want)
		}
		if err != nil && strings.Contains(err.Error(), "correct horse") {
			t.Errorf("%s: the error has the password", tc.name)
		}
	}
	_, err := NewAccess(AccessConfig{Records: newMemoryRecords(), PasswordFile: filepath.Join(dir, "gone"), cost: cheap})
	if !errors.Is(err, os.ErrNotExist) {
		t.Errorf("gone: %v", err)
	}
}

// A full disk stops no node: the file is read again at the next start.
func TestPasswordFileOnAFullDisk(t *testing.T) {
	file := filepath.Join(t.TempDir(), "password")
	if err := os.WriteFile(file, []byte(goodPassword), 0o600); err != nil {
		t.Fatal(err)
	}
	records := newMemoryRecords()
	records.full = errFull
	start := func() *site {
		s := newSite(t, func(cfg *AccessConfig) { cfg.PasswordFile, cfg.Records = file, records })
		s.records = records
		return s
	}
	s := start()
	if log := s.log.String(); !strings.Contains(log, "password file not applied") || strings.Contains(log, goodPassword) {
		t.Errorf("log:\n%s", log)
	}
	if needs, err := s.NeedsSetUp(); !needs || err != nil {
		t.Errorf("needs set-up: %v, %v", needs, err)
	}
	records.full = nil
	if err := start().local().signIn(t.Context(), "admin", goodPassword); err != nil {
		t.Errorf("when there is room: %v", err)
	}
	records = newMemoryRecords()
	records.full = errDisk
	if _, err := NewAccess(AccessConfig{Records: records, PasswordFile: file, cost: cheap}); !errors.Is(err, errDisk) {
		t.Errorf("another failure: %v", err)
	}
}

func TestPasswordFileOfSystemd(t *testing.T) {
	dir := t.TempDir()
	getenv := func(name string) string { return map[string]string{"CREDENTIALS_DIRECTORY": dir}[name] }
	if got := passwordFile("", getenv); got != "" {
		t.Errorf("without the credential: %q", got)
	}
	file := filepath.Join(dir, credentialName)
	if err := os.WriteFile(file, nil, 0o400); err != nil {
		t.Fatal(err)
	}
	if got := passwordFile("", getenv); got != file {
		t.Errorf("got %q, want %q", got, file)
	}
	if got := passwordFile("given", getenv); got != "given" {
		t.Errorf("got %q, want the one given", got)
	}
	if got := passwordFile("", func(string) string { return "" }); got != "" {
		t.Errorf("without systemd: %q", got)
	}
}
