package store

import (
	"fmt"
	"math"
	"slices"
)

const (
	maxCORSList       = 64
	defaultCORSMaxAge = 5 // seconds
)

// CORS answers what browsers ask before and with the requests of another origin's
// page: the Gateway API's HTTPCORSFilter, which an RPCPolicy has, too. An absent CORS
// lets no other origin in.
type CORS struct {
	// AllowOrigins are like "https://shop.example.com", "https://*.example.com" for
	// every name below, or "*" alone for all.
	AllowOrigins     []string `json:"allowOrigins,omitempty"`
	AllowCredentials bool     `json:"allowCredentials,omitempty"`
	AllowMethods     []string `json:"allowMethods,omitempty"`
	AllowHeaders     []string `json:"allowHeaders,omitempty"`
	ExposeHeaders    []string `json:"exposeHeaders,omitempty"`
	MaxAge           int      `json:"maxAge"` // seconds
}

func readCORS(m *mapping) *CORS {
	defer m.finish()
	return &CORS{
		AllowOrigins:     readWords(m.optional("allowOrigins"), true, checkOrigin),
		AllowCredentials: m.optional("allowCredentials").boolean(),
		AllowMethods:     readWords(m.optional("allowMethods"), true, checkCORSMethod),
		AllowHeaders:     readWords(m.optional("allowHeaders"), true, checkHeaderName),
		ExposeHeaders:    readWords(m.optional("exposeHeaders"), false, checkHeaderName),
		MaxAge:           m.optional("maxAge").integer(defaultCORSMaxAge, 1, math.MaxInt32),
	}
}

// readWords reads a list of different words; alone tells that "*" stands for all of
// them, and by itself.
func readWords(v *value, alone bool, check func(string) string) []string {
	items := v.list(maxCORSList)
	words := each(items, func(v *value) string { return v.word(check) })
	seen := make(map[string]bool, len(words))
	for i, word := range words {
		switch {
		case word != "" && seen[word]:
			items[i].fault("%s is there already", quote(word))
		case word == "*" && alone && len(words) > 1:
			items[i].fault(`want nothing beside "*"`)
		}
		seen[word] = true
	}
	return words
}

func checkCORSMethod(s string) string {
	if s == "*" {
		return ""
	}
	if !slices.Contains(httpMethods, s) {
		return fmt.Sprintf(`want "*" or %s`, enumerate(httpMethods))
	}
	return ""
}
