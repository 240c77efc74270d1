set terminal svg size 1240,780 dynamic font 'sans,13' background 'white'
set output 'frontier.svg'
set multiplot layout 2,2 title 'opt-small, 0 % sparsity, groups of 64, calibrated on wikitext2.calib.txt' noenhanced
set logscale y
unset mytics
set grid back lc rgb '#dddddd'
set key outside right top vertical noenhanced samplen 1.5
set xlabel 'stored bits per weight'
set format y '%g'
$data_0_0 << EOD
2.375 53.40541191
3.375 47.66547222
4.375 46.84731913
EOD
$data_0_1 << EOD
2.375 53.40541191
2.88671875 48.9246992
3.38671875 48.11184891
3.88671875 47.52298878
4.38671875 47.28737034
EOD
$data_0_2 << EOD
2.375 53.40541191
2.88671875 49.19010558
3.384548611 47.53619726
3.88671875 47.07265005
4.379991319 46.87380861
EOD
$data_0_3 << EOD
2.375 53.40541191
2.885416667 47.85037116
3.385416667 47.19896168
3.885850694 46.79512516
4.384331597 46.75791495
EOD
$data_1_0 << EOD
2.375 73.81445778
3.375 62.32865927
4.375 61.40792885
EOD
$data_1_1 << EOD
2.375 73.81445778
2.88671875 66.24627918
3.38671875 63.99814196
3.88671875 63.30150659
4.38671875 62.90747711
EOD
$data_1_2 << EOD
2.375 73.81445778
2.88671875 65.25641723
3.384548611 62.25770716
3.88671875 61.56005143
4.379991319 61.26100948
EOD
$data_1_3 << EOD
2.375 73.81445778
2.885416667 63.34682511
3.385416667 62.0002787
3.885850694 61.27887058
4.384331597 60.94430867
EOD
$data_2_0 << EOD
2.375 278.5014848
3.375 231.3811387
4.375 224.8033858
EOD
$data_2_1 << EOD
2.375 278.5014848
2.88671875 235.0793902
3.38671875 229.3294342
3.88671875 227.1109404
4.38671875 230.228039
EOD
$data_2_2 << EOD
2.375 278.5014848
2.88671875 238.9923789
3.384548611 227.8881429
3.88671875 226.651834
4.379991319 224.2157252
EOD
$data_2_3 << EOD
2.375 278.5014848
2.885416667 231.1850765
3.385416667 226.1983038
3.885850694 222.992925
4.384331597 222.7354609
EOD
$data_3_0 << EOD
2.375 0.3174163237
3.375 0.06837552323
4.375 0.01631354443
EOD
$data_3_1 << EOD
2.375 0.3174163237
2.88671875 0.1873932714
3.38671875 0.1408140739
3.88671875 0.1123737057
4.38671875 0.08921201473
EOD
$data_3_2 << EOD
2.375 0.3174163237
2.88671875 0.1615211483
3.384548611 0.06570162361
3.88671875 0.03551289666
4.379991319 0.01644055063
EOD
$data_3_3 << EOD
2.375 0.3174163237
2.885416667 0.1300725438
3.385416667 0.05876785635
3.885850694 0.02882591577
4.384331597 0.01527449047
EOD
set yrange [45.34848649:55.00757427]
set ytics (50, 55)
set ylabel 'perplexity on wikitext2' noenhanced
plot $data_0_0 with linespoints lw 2 pt 5 ps 0.7 lc rgb '#444444' title 'uniform', $data_0_1 with linespoints lw 2 pt 7 ps 0.7 lc rgb '#d95f02' title 'quantile', $data_0_2 with linespoints lw 2 pt 9 ps 0.7 lc rgb '#1f78b4' title 'budget-layer', $data_0_3 with linespoints lw 2 pt 11 ps 0.7 lc rgb '#33a02c' title 'budget-model', 46.70894108 with lines dt 2 lc rgb '#888888' title 'dense'
set yrange [59.16923172:76.02889151]
set ytics (60, 65, 70, 75)
set ylabel 'perplexity on ptb' noenhanced
plot $data_1_0 with linespoints lw 2 pt 5 ps 0.7 lc rgb '#444444' title 'uniform', $data_1_1 with linespoints lw 2 pt 7 ps 0.7 lc rgb '#d95f02' title 'quantile', $data_1_2 with linespoints lw 2 pt 9 ps 0.7 lc rgb '#1f78b4' title 'budget-layer', $data_1_3 with linespoints lw 2 pt 11 ps 0.7 lc rgb '#33a02c' title 'budget-model', 61.03559992 with lines dt 2 lc rgb '#888888' title 'dense'
set yrange [216.2480203:286.8565294]
set ytics (250)
set ylabel 'perplexity on c4' noenhanced
plot $data_2_0 with linespoints lw 2 pt 5 ps 0.7 lc rgb '#444444' title 'uniform', $data_2_1 with linespoints lw 2 pt 7 ps 0.7 lc rgb '#d95f02' title 'quantile', $data_2_2 with linespoints lw 2 pt 9 ps 0.7 lc rgb '#1f78b4' title 'budget-layer', $data_2_3 with linespoints lw 2 pt 11 ps 0.7 lc rgb '#33a02c' title 'budget-model', 223.363583 with lines dt 2 lc rgb '#888888' title 'dense'
set yrange [0.0148296024:0.3269388134]
set ytics (0.02, 0.05, 0.1, 0.2)
set ylabel 'KL from dense, nats per token' noenhanced
plot $data_3_0 with linespoints lw 2 pt 5 ps 0.7 lc rgb '#444444' title 'uniform', $data_3_1 with linespoints lw 2 pt 7 ps 0.7 lc rgb '#d95f02' title 'quantile', $data_3_2 with linespoints lw 2 pt 9 ps 0.7 lc rgb '#1f78b4' title 'budget-layer', $data_3_3 with linespoints lw 2 pt 11 ps 0.7 lc rgb '#33a02c' title 'budget-model'
unset multiplot
