set terminal svg size 1240,780 dynamic font 'sans,13' background 'white'
set output 'frontier.svg'
set multiplot layout 2,2 title 'opt-tiny, 0 % sparsity, groups of 64, calibrated on wikitext2.calib.txt' noenhanced
set logscale y
unset mytics
set grid back lc rgb '#dddddd'
set key outside right top vertical noenhanced samplen 1.5
set xlabel 'stored bits per weight'
set format y '%g'
$data_0_0 << EOD
2.375 48.52235502
3.375 37.77457194
4.375 36.10683363
EOD
$data_0_1 << EOD
2.375 48.52235502
2.90625 42.06958175
3.40625 39.85143651
3.90625 38.53735084
4.40625 37.71693096
EOD
$data_0_2 << EOD
2.375 48.52235502
2.90625 40.73314481
3.404513889 37.56831027
3.90625 36.58858745
4.392361111 36.04529481
EOD
$data_0_3 << EOD
2.375 48.52235502
2.901909722 39.47795598
3.403645833 37.18302818
3.905381944 36.37464052
4.401909722 36.02490918
EOD
$data_1_0 << EOD
2.375 70.29911313
3.375 49.93164885
4.375 47.17381385
EOD
$data_1_1 << EOD
2.375 70.29911313
2.90625 57.81741927
3.40625 53.78995688
3.90625 51.91540593
4.40625 50.23231865
EOD
$data_1_2 << EOD
2.375 70.29911313
2.90625 55.64496943
3.404513889 49.95262774
3.90625 47.90753279
4.392361111 47.25884697
EOD
$data_1_3 << EOD
2.375 70.29911313
2.901909722 53.48613185
3.403645833 49.27134288
3.905381944 47.67820972
4.401909722 47.10436474
EOD
$data_2_0 << EOD
2.375 192.3816669
3.375 139.2627343
4.375 132.1462316
EOD
$data_2_1 << EOD
2.375 192.3816669
2.90625 157.9303437
3.40625 146.6439443
3.90625 142.9155156
4.40625 140.5991397
EOD
$data_2_2 << EOD
2.375 192.3816669
2.90625 153.2682476
3.404513889 138.4003995
3.90625 134.0284365
4.392361111 132.0003761
EOD
$data_2_3 << EOD
2.375 192.3816669
2.901909722 153.6253337
3.403645833 136.6284853
3.905381944 133.5050183
4.401909722 131.6790721
EOD
$data_3_0 << EOD
2.375 0.351766978
3.375 0.06939248668
4.375 0.01574184759
EOD
$data_3_1 << EOD
2.375 0.351766978
2.90625 0.1970668029
3.40625 0.1363679804
3.90625 0.1039013934
4.40625 0.07958362833
EOD
$data_3_2 << EOD
2.375 0.351766978
2.90625 0.1583789452
3.404513889 0.06832286852
3.90625 0.03441097066
4.392361111 0.01582786643
EOD
$data_3_3 << EOD
2.375 0.351766978
2.901909722 0.1271866199
3.403645833 0.05541655515
3.905381944 0.02752745674
4.401909722 0.01417466946
EOD
set yrange [34.61966938:49.97802567]
set ytics (35, 40, 45)
set ylabel 'perplexity on wikitext2' noenhanced
plot $data_0_0 with linespoints lw 2 pt 5 ps 0.7 lc rgb '#444444' title 'uniform', $data_0_1 with linespoints lw 2 pt 7 ps 0.7 lc rgb '#d95f02' title 'quantile', $data_0_2 with linespoints lw 2 pt 9 ps 0.7 lc rgb '#1f78b4' title 'budget-layer', $data_0_3 with linespoints lw 2 pt 11 ps 0.7 lc rgb '#33a02c' title 'budget-model', 35.65825946 with lines dt 2 lc rgb '#888888' title 'dense'
set yrange [45.09494189:72.40808652]
set ytics (50, 55, 60, 65, 70)
set ylabel 'perplexity on ptb' noenhanced
plot $data_1_0 with linespoints lw 2 pt 5 ps 0.7 lc rgb '#444444' title 'uniform', $data_1_1 with linespoints lw 2 pt 7 ps 0.7 lc rgb '#d95f02' title 'quantile', $data_1_2 with linespoints lw 2 pt 9 ps 0.7 lc rgb '#1f78b4' title 'budget-layer', $data_1_3 with linespoints lw 2 pt 11 ps 0.7 lc rgb '#33a02c' title 'budget-model', 46.44779015 with lines dt 2 lc rgb '#888888' title 'dense'
set yrange [126.5347606:198.1531169]
set ytics (140, 160, 180)
set ylabel 'perplexity on c4' noenhanced
plot $data_2_0 with linespoints lw 2 pt 5 ps 0.7 lc rgb '#444444' title 'uniform', $data_2_1 with linespoints lw 2 pt 7 ps 0.7 lc rgb '#d95f02' title 'quantile', $data_2_2 with linespoints lw 2 pt 9 ps 0.7 lc rgb '#1f78b4' title 'budget-layer', $data_2_3 with linespoints lw 2 pt 11 ps 0.7 lc rgb '#33a02c' title 'budget-model', 130.3308034 with lines dt 2 lc rgb '#888888' title 'dense'
set yrange [0.01376181501:0.3623199873]
set ytics (0.02, 0.05, 0.1, 0.2)
set ylabel 'KL from dense, nats per token' noenhanced
plot $data_3_0 with linespoints lw 2 pt 5 ps 0.7 lc rgb '#444444' title 'uniform', $data_3_1 with linespoints lw 2 pt 7 ps 0.7 lc rgb '#d95f02' title 'quantile', $data_3_2 with linespoints lw 2 pt 9 ps 0.7 lc rgb '#1f78b4' title 'budget-layer', $data_3_3 with linespoints lw 2 pt 11 ps 0.7 lc rgb '#33a02c' title 'budget-model'
unset multiplot
