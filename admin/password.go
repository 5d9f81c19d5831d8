package admin

import (
	"context"
	"crypto/rand"
	"crypto/subtle"
	"encoding/base64"
	"errors"
	"fmt"
	"strings"
	"unicode"
	"unicode/utf8"

	"golang.org/x/crypto/argon2"
)

// Passwords of people. The shortest is what takes too long to guess at the pace
// that the throttle leaves; the longest keeps the hash's input small.
const (
	minPassword = 12   // characters
	maxPassword = 1024 // bytes
)

// passwordCost is what one argon2id hash takes (RFC 9106).
type passwordCost struct {
	memory  uint32 // KiB
	passes  uint32
	threads uint8
}

// standardCost is about 25 ms of a core. Hashes of another cost are replaced when
// their password is next shown.
var standardCost = passwordCost{memory: 19 << 10, passes: 2, threads: 1}

// How many hashes are computed at a time bounds their memory: 19 MiB each. Those
// who are known have a place of their own, which strangers cannot fill.
const (
	hashesOfStrangers = 2
	hashesOfKnown     = 1
)

const (
	saltBytes = 16
	hashBytes = 32
)

// passwords hashes and compares.
type passwords struct {
	cost             passwordCost
	derive           func(password, salt []byte, cost passwordCost) []byte
	strangers, known chan struct{} // a place for each hash that may be computed now

	// nobody is the hash that is compared for accounts that do not exist, so that
	// they take as long as those that do.
	nobody string
}

func newPasswords(cost passwordCost) *passwords {
	p := &passwords{
		cost:      cost,
		derive:    deriveArgon2,
		strangers: make(chan struct{}, hashesOfStrangers),
		known:     make(chan struct{}, hashesOfKnown),
	}
	p.nobody = encodePassword(cost, random(saltBytes), random(hashBytes))
	return p
}

func deriveArgon2(password, salt []byte, c passwordCost) []byte {
	return argon2.IDKey(password, salt, c.passes, c.memory, c.threads, hashBytes)
}

// hash returns what is kept of a password.
func (p *passwords) hash(ctx context.Context, password string, known bool) (string, error) {
	leave, err := p.enter(ctx, known)
	if err != nil {
		return "", err
	}
	defer leave()
	salt := random(saltBytes)
	return encodePassword(p.cost, salt, p.derive([]byte(password), salt, p.cost)), nil
}

// verify tells whether the password is that of the hash. It takes as long for a
// wrong one as for the right one, and for the hash of nobody.
func (p *passwords) verify(ctx context.Context, encoded, password string, known bool) (bool, error) {
	cost, salt, want, err := decodePassword(encoded)
	if err != nil {
		return false, err
	}
	leave, err := p.enter(ctx, known)
	if err != nil {
		return false, err
	}
	defer leave()
	return subtle.ConstantTimeCompare(p.derive([]byte(password), salt, cost), want) == 1, nil
}

// outdated tells whether the hash has another cost than new ones.
func (p *passwords) outdated(encoded string) bool {
	cost, _, _, err := decodePassword(encoded)
	return err == nil && cost != p.cost
}

// enter waits for a place, in the order of arrival.
func (p *passwords) enter(ctx context.Context, known bool) (leave func(), err error) {
	places := p.strangers
	if known {
		places = p.known
	}
	select {
	case places <- struct{}{}:
		return func() { <-places }, nil
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

// encodePassword writes the form that other programs write, too, and that has
// everything that comparing needs.
func encodePassword(c passwordCost, salt, hash []byte) string {
	b64 := base64.RawStdEncoding
	return fmt.Sprintf("$argon2id$v=%d$m=%d,t=%d,p=%d$%s$%s", argon2.Version,
		c.memory, c.passes, c.threads, b64.EncodeToString(salt), b64.EncodeToString(hash))
}

var errPasswordHash = errors.New("the account's password hash is not one that this version can read")

func decodePassword(encoded string) (c passwordCost, salt, hash []byte, err error) {
	part := strings.Split(encoded, "$")
	if len(part) != 6 || part[1] != "argon2id" || part[2] != fmt.Sprintf("v=%d", argon2.Version) {
		return c, nil, nil, errPasswordHash
	}
	if n, err := fmt.Sscanf(part[3], "m=%d,t=%d,p=%d", &c.memory, &c.passes, &c.threads); n != 3 || err != nil {
		return c, nil, nil, errPasswordHash
	}
	salt, saltErr := base64.RawStdEncoding.DecodeString(part[4])
	hash, hashErr := base64.RawStdEncoding.DecodeString(part[5])
	if saltErr != nil || hashErr != nil || len(hash) != hashBytes || !c.bearable() {
		return c, nil, nil, errPasswordHash
	}
	return c, salt, hash, nil
}

// bearable refuses costs that argon2 cannot have, and those that would stop the node.
func (c passwordCost) bearable() bool {
	const mostMemory, mostPasses = 256 << 10, 64
	return c.threads > 0 && c.passes > 0 && c.passes <= mostPasses && c.memory <= mostMemory
}

// checkPassword tells why somebody may not have that password, or nil.
func checkPassword(name, password string) error {
	switch {
	case len(password) > maxPassword:
		return fmt.Errorf("password of %d bytes, limit %d", len(password), maxPassword)
	case !utf8.ValidString(password) || strings.ContainsFunc(password, unicode.IsControl):
		return errors.New("password: want text without control characters")
	case utf8.RuneCountInString(password) < minPassword:
		return fmt.Errorf("password of %d characters, want at least %d; a few words in a row are easy to keep in mind",
			utf8.RuneCountInString(password), minPassword)
	case strings.Trim(password, string([]rune(password)[:1])) == "":
		return errors.New("password: one character again and again is the first thing that is tried")
	case strings.EqualFold(password, name):
		return errors.New("password: the account's name is the first thing that is tried")
	}
	return nil
}

// random returns bytes that nobody can guess. crypto/rand does not fail: it ends
// the process instead.
func random(n int) []byte {
	b := make([]byte, n)
	rand.Read(b)
	return b
}
