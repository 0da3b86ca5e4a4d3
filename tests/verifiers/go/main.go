// Verifies the cases in a directory with Go's crypto/x509, or tries them in real TLS handshakes.
//
//	verify-go verify|handshake DIR
//
// ../README.md says what a case is, and what is printed.
package main

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
)

func main() {
	modes := map[string]func(*testCase) []result{"verify": verify, "handshake": handshakes}
	if len(os.Args) != 3 || modes[os.Args[1]] == nil {
		fmt.Fprintln(os.Stderr, "usage: verify-go verify|handshake DIR")
		os.Exit(2)
	}
	folders, err := caseFolders(os.Args[2])
	if err != nil {
		report("-", result{tool: "go", err: err})
		os.Exit(1)
	}
	sound := true
	for _, folder := range folders {
		for _, result := range check(folder, modes[os.Args[1]]) {
			report(filepath.Base(folder), result)
			sound = sound && result.err == nil
		}
	}
	if !sound {
		os.Exit(1)
	}
}

// A result is one line of the output. Without an error it says `said`.
type result struct {
	tool string
	said string
	err  error
}

func report(name string, result result) {
	line := []string{name, result.tool, result.said}
	if result.err != nil {
		reason := strings.Join(strings.Fields(result.err.Error()), " ")
		line = []string{name, result.tool, "FAIL", reason}
	}
	fmt.Println(strings.Join(line, "\t"))
}

func check(folder string, mode func(*testCase) []result) []result {
	c, err := readCase(folder)
	if err != nil {
		return []result{{tool: "go", err: err}}
	}
	return mode(c)
}

func caseFolders(dir string) ([]string, error) {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return nil, err
	}
	var folders []string
	for _, entry := range entries {
		if entry.IsDir() {
			folders = append(folders, filepath.Join(dir, entry.Name()))
		}
	}
	if len(folders) == 0 {
		return nil, errors.New("no cases in " + dir)
	}
	return folders, nil
}
