package web

import (
	"net/http"
	"strings"

	"sluice/gateway/wire"
)

const (
	typeGRPC = "application/grpc"
	typeWeb  = "application/grpc-web"
	typeText = "application/grpc-web-text"
)

// NativeType is the content type of a gRPC-Web request as gRPC has it: with the same
// codec, without parameters.
func NativeType(contentType string) string {
	switch contentType {
	case typeWeb + "+proto", typeText + "+proto":
		return typeGRPC + "+proto"
	case typeWeb, typeText:
		return typeGRPC
	}
	return typeGRPC + codecOf(contentType)
}

// Type is the content type of a gRPC response as gRPC-Web has it.
func Type(native string, text bool) string {
	switch {
	case native == typeGRPC+"+proto" && text:
		return typeText + "+proto"
	case native == typeGRPC+"+proto":
		return typeWeb + "+proto"
	case text:
		return typeText + codecOf(native)
	}
	return typeWeb + codecOf(native)
}

// codecOf is what follows the media type's name, "+proto", up to parameters.
func codecOf(contentType string) string {
	contentType, _, _ = strings.Cut(contentType, ";")
	plus := strings.IndexByte(contentType, '+')
	if plus < 0 {
		return ""
	}
	return strings.TrimRight(contentType[plus:], " \t")
}

// AnswersText reports whether a gRPC-Web request is to be answered in text. What it
// accepts says so; when that names neither form, its own form does.
func AnswersText(contentType, accept string) bool {
	switch text := wire.KindOf(contentType) == wire.KindGRPCWebText; {
	case accept == "" || accept == "*/*":
		return text
	case strings.Contains(accept, typeText):
		return true
	case strings.Contains(accept, typeWeb):
		return false
	default:
		return text
	}
}

// IsRequest tells what a Handler serves: gRPC-Web, and WebSockets that carry it.
func IsRequest(r *http.Request) bool {
	return wire.IsGRPCWeb(r.Header.Get("Content-Type")) || IsSocket(r)
}
