package admin

import (
	"crypto/sha256"
	_ "embed" // the page
	"encoding/base64"
	"fmt"
	"net/http"
	"strings"
)

// setUpText is the page of the one-time link: a form, and the script that sends it.
//
//go:embed setup.html
var setUpText string

// setUpPolicy lets the page do what it does, and nothing that somebody could make it
// do besides: its own script and style alone, named by their hashes, and one place
// to talk to.
var setUpPolicy = fmt.Sprintf(
	"default-src 'none'; script-src '%s'; style-src '%s'; connect-src 'self'; form-action 'none'; base-uri 'none'; frame-ancestors 'none'",
	hashOf(setUpText, "script"), hashOf(setUpText, "style"))

// hashOf is the name of what one element of a page holds (CSP level 3, section 2.3.1).
func hashOf(page, element string) string {
	_, rest, _ := strings.Cut(page, "<"+element+">")
	inside, _, _ := strings.Cut(rest, "</"+element+">")
	sum := sha256.Sum256([]byte(inside))
	return "sha256-" + base64.StdEncoding.EncodeToString(sum[:])
}

// setUpPage is what the link opens. It is the same for everybody: the secret is in
// the link alone.
func setUpPage(w http.ResponseWriter, _ *http.Request) {
	w.Header().Set("Content-Security-Policy", setUpPolicy)
	w.Header().Set("Content-Type", "text/html; charset=utf-8")
	w.Write([]byte(setUpText))
}
